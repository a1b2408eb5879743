#!/bin/bash
# The initramfs of initramfs-tools with the hook and the script of initramfs/: a machine boots from a
# squashfs image, or an archive, by boot=xget, and goes on serving it from its real root.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines mkinitramfs:initramfs-tools-core unshare:util-linux

# ---- the initramfs

configuration=$work/configuration
mkdir -p "$configuration"
cp -r "$repo/initramfs/initramfs-tools"/* "$configuration/"
printf 'MODULES=list\nBUSYBOX=y\nCOMPRESS=zstd\n' > "$configuration/initramfs.conf"
: > "$configuration/modules"

# initramfs FILE: it looks for the kernel where a machine that runs it has it
initramfs() {
    unshare -m bash -c '
        mkdir -p /lib/modules /boot
        mount --bind "$1/lib/modules" /lib/modules && mount --bind "$1/boot" /boot &&
            XGET=$4 TMPDIR=$5 mkinitramfs -d "$2" -o "$3" "$6"
    ' - "$kernels/root" "$configuration" "$work/$1" "$static_node" "$work" "$version"
}
check "mkinitramfs makes an initramfs" initramfs debian.img

# ---- the machine

boot_server || finish
boots debian 1 "boot=xget root=xget:///$image"
in_full || finish
cp "$work/debian.img" "$work/archive.img"
boots archive 2 "boot=xget root=xget:///$archive" tmpfs
end TERM master
check "debian: with the master gone it serves its image" fetches_from 1
finish
