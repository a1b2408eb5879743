#!/bin/bash
# Every kind of root that xget takes, each booted by a machine with nothing but xget in its initramfs. (A
# squashfs image and a packed archive are booted by the tests of other initramfs.)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines python3:python3 mkfs.erofs:erofs-utils mkfs.ext4:e2fsprogs cpio:cpio

memory=256                          # of each machine, in MiB

# in_use IMAGE: as an image of ext4 is that was copied while it was mounted, its journal is to be replayed
in_use() {
    python3 - "$1" <<'P'
import sys
with open(sys.argv[1], "r+b") as image:
    # s_feature_incompat of the superblock: EXT4_FEATURE_INCOMPAT_RECOVER
    image.seek(1024 + 0x60)
    features = image.read(1)[0]
    image.seek(1024 + 0x60)
    image.write(bytes([features | 4]))
P
}

make_kinds() {
    local root=$work/root tree="$boot/trees/node:v2,a"
    make_image && mkfs.erofs -T0 "$boot/images/node.erofs" "$root" &&
        truncate -s 16M "$boot/images/node.ext4" &&
        mkfs.ext4 -q -O ^metadata_csum -d "$root" "$boot/images/node.ext4" && in_use "$boot/images/node.ext4" &&
        (cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) > "$boot/images/node.cpio" || return
    # A tree with a name that means something to an overlay, and a first program that is not a usual one.
    mkdir -p "$boot/trees" && cp -a "$root" "$tree" && mkdir "$tree/opt" && mv "$tree/sbin/init" "$tree/opt/start" || return
    # An archive that does not fit into memory, but for its holes.
    truncate -s 2G "$root/var/lastlog" &&
        tar -C "$root" --owner=0 --group=0 -S --format=posix -cf "$boot/images/node.tar" .
}
make_kinds > "$work/kinds.log" 2>&1 || { fail "roots are made" "$work/kinds.log"; finish; }

boot_server || finish
check "an initramfs is made" alone alone.img --modules "$version:$kernels/root" erofs ext4

# ---- roots

# By way of a symbolic link on the master.
ln -s images "$boot/current"
boots_alone erofs 1 $memory "root=xget:///current/node.erofs"
boots_alone ext4 2 $memory "root=xget:///images/node.ext4"
boots_alone tree 3 $memory "root=xget:///trees/node:v2%2Ca init=/opt/start"
for name in erofs ext4 tree; do
    is_up $name
    check "$name: its root is an overlay" vm_printed $name '^ROOT mount .* overlay '
done
check "ext4: that its journal is not replayed is told" vm_printed ext4 'was in use when it was copied'
end TERM erofs ext4 tree

boots_alone cpio 4 $memory "root=xget:///images/node.cpio"
boots_alone tar 5 $memory "root=xget:///images/node.tar"
for name in cpio tar; do
    is_up $name
    check "$name: its root is in memory" vm_printed $name '^ROOT mount .* tmpfs '
done
end TERM cpio tar
finish
