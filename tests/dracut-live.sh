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

live="base bash udev-rules network-legacy livenet xget"
check "dracut makes an initramfs for live images without systemd" dracut_initramfs live.img "$live"
check "and one with systemd" dracut_initramfs live-systemd.img "$live $dracut_systemd"

# ---- the machines

boot_server || finish
# dracut 059 has to be told that a squashfs which is the root wants an overlay.
boots live 1 "root=live:xget://$(ip_of 0)/$image rd.live.overlay.overlayfs"
boots live-systemd 2 "root=live:xget:///$image rd.live.overlay.overlayfs"
# The same for a root that xget mounts: dracut's network is there before, or is told nothing.
ln "$work/live.img" "$work/legacy.img"
boots legacy 3 "root=xget:///$image ip=dhcp"
check "legacy: xget uses the network that dracut has brought up" \
    vm_prints 30 legacy "^ROOT dmesg .*xget: eth0 has the address $(address_of 3)"
ln "$work/live.img" "$work/untold.img"
boots untold 4 "root=xget:///$image"
check "untold: xget brings it up" vm_prints 30 untold '^ROOT dmesg .*xget: eth0 has the address .*, from the DHCP server'

# What cannot be had ends the boot at once, and not after a hundred attempts of livenet's.
vm_on_switch not-live 5 -m 768 -no-reboot -kernel "$vmlinuz" -initrd "$work/live.img" \
    -append "console=ttyS0 no_timer_check panic=-1 quiet rd.shell=0 rd.emergency=reboot root=live:xget:///images/none"
check "live: what is not served is told" vm_prints 240 not-live "xget: $(ip_of 0) does not serve images/none"
check "live: and the boot has failed" vm_prints 30 not-live 'Boot has failed'

end TERM master
check "live: with the master gone it serves its image" fetches_from 1
check "live-systemd: with the master gone it serves its image" fetches_from 2
finish
