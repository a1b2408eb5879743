#!/bin/bash
# dracut's live images by root=live:xget://: its own network, livenet, which fetches by the URL handler of
# dracut-module/, and dmsquash-live, which mounts what was fetched.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
. "$(dirname "$0")/vm/dracut.sh"
need_machines dracut:dracut-core /usr/lib/dracut/modules.d/90livenet:dracut-network \
    /usr/lib/dracut/modules.d/90dmsquash-live:dracut-live dhclient:isc-dhcp-client arping:iputils-arping \
    curl:curl dmsetup:dmsetup

# ---- the initramfs

live="base bash udev-rules kernel-modules fs-lib network-legacy livenet xget"
check "dracut makes an initramfs for live images without systemd" dracut_initramfs live.img "$live"
check "and one with systemd" dracut_initramfs live-systemd.img "$live $dracut_systemd"

# ---- the machines

boot_server || finish
# dracut 059 has to be told that a squashfs which is the root wants an overlay.
boots live 1 "root=live:xget://$(ip_of 0)/$image rd.live.overlay.overlayfs"
boots live-systemd 2 "root=live:xget:///$image rd.live.overlay.overlayfs"
end TERM master
check "live: with the master gone it serves its image" fetches_from 1
check "live-systemd: with the master gone it serves its image" fetches_from 2
finish
