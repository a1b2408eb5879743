#!/bin/bash
# dracut's initramfs with the module of dracut-module/: a machine boots from a squashfs image by
# root=xget://, and goes on serving it from its real root.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines dracut:dracut-core

# ---- the initramfs

# dracut takes modules from one directory: its own, and ours among them.
base=$work/dracut
mkdir -p "$base/modules.d" "$work/none"
for file in /usr/lib/dracut/*; do [ "$(basename "$file")" = modules.d ] || ln -s "$file" "$base/"; done
ln -s /usr/lib/dracut/modules.d/* "$repo/dracut-module/50xget" "$base/modules.d/"

# initramfs FILE MODULES
initramfs() {
    dracutbasedir=$base XGET=$static_node dracut -f -q --no-hostonly --no-hostonly-cmdline --no-early-microcode \
        --kver "$version" --kmoddir "$kernels/root/lib/modules/$version" --tmpdir "$work" --conf /dev/null \
        --confdir "$work/none" --zstd -m "$2" "$work/$1"
}
check "dracut makes an initramfs without systemd and without a network of its own" \
    initramfs plain.img "base bash udev-rules kernel-modules fs-lib xget"
check "and one with systemd" \
    initramfs systemd.img "base bash udev-rules kernel-modules fs-lib xget systemd systemd-initrd dracut-systemd \
        systemd-udevd systemd-journald systemd-tmpfiles systemd-modules-load systemd-sysctl"

# ---- the machines

boot_server || finish
boots plain 1 "root=xget:///$image"
boots systemd 2 "root=xget:///$image"
end TERM master
check "plain: with the master gone it serves its image" fetches_from 1
check "systemd: with the master gone it serves its image" fetches_from 2
finish
