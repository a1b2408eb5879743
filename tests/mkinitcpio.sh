#!/bin/bash
# The hooks of initramfs/mkinitcpio: a machine boots from a squashfs image with busybox's init and `xget`, and
# one with systemd and `sd-xget`; both go on serving it from their real roots. mkinitcpio itself is not in
# Debian: what calls the hooks is a stand-in, vm/mkinitcpio.sh.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
. "$(dirname "$0")/vm/mkinitcpio.sh"
need_machines make:make switch_root:util-linux kmod:kmod udevadm:udev /usr/lib/systemd/systemd:systemd

# ---- the initramfs

check "the hooks are installed" install_hooks
check "the hook xget makes an initramfs" mkinitcpio_initramfs busybox.img base xget
if ! in_full; then
    boot_server && boots busybox 1 "root=xget:///$image"
    finish
fi
check "the hook sd-xget makes one with systemd" mkinitcpio_initramfs sd.img systemd sd-xget

# ---- the machines

boot_server || finish
boots busybox 1 "root=xget:///$image"
boots sd 2 "root=xget:///$image"
check "sd: it is mounted by mount(8), as sysroot.mount" vm_printed sd 'mount\[[0-9]+\]: xget: the root is '
end TERM master
check "busybox: with the master gone it serves its image" fetches_from 1
check "sd: with the master gone it serves its image" fetches_from 2
finish
