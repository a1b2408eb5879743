#!/bin/bash
# Every kind of root that xget takes, each booted by a machine with nothing but xget in its initramfs; and a
# kernel whose initrds have little room. (A squashfs image and a packed archive are booted by the tests of
# other initramfs.)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines mkfs.erofs:erofs-utils mkfs.ext4:e2fsprogs cpio:cpio

memory=256                          # of each machine, in MiB

make_kinds() {
    local root=$work/root tree="$boot/trees/node:v2,a"
    make_image && mkfs.erofs -T0 "$boot/images/node.erofs" "$root" &&
        truncate -s 16M "$boot/images/node.ext4" && mkfs.ext4 -q -d "$root" "$boot/images/node.ext4" &&
        (cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) > "$boot/images/node.cpio" || return
    # A tree with a name that means something to an overlay, and a first program that is not a usual one.
    mkdir -p "$boot/trees" && cp -a "$root" "$tree" && mkdir "$tree/opt" && mv "$tree/sbin/init" "$tree/opt/start" || return
    # An archive that does not fit into memory, but for its holes.
    truncate -s 2G "$root/var/lastlog" &&
        tar -C "$root" --owner=0 --group=0 -S --format=posix -cf "$boot/images/node.tar" .
}
make_kinds > "$work/kinds.log" 2>&1 || { fail "roots are made" "$work/kinds.log"; finish; }

# To join the two takes more than a third of a machine's memory, and to load them nearly all of it.
mkdir "$work/payload" && random_file "$work/payload/large" $((23 << 20))
cp "$vmlinuz" "$boot/vmlinuz"
second_initrd "$boot/second.img"
pack "$work/payload" "$boot/payload.img"
random_file "$boot/larger.img" $((36 << 20))
random_file "$boot/largest.img" $((72 << 20))

boot_server || finish
check "an initramfs is made" alone alone.img --modules "$version:$kernels/root" erofs ext4

# ---- roots

boots_alone erofs 1 $memory "root=xget:///images/node.erofs"
boots_alone ext4 2 $memory "root=xget:///images/node.ext4"
boots_alone tree 3 $memory "root=xget:///trees/node:v2%2Ca init=/opt/start"
for name in erofs ext4 tree; do
    is_up $name
    check "$name: its root is an overlay" vm_printed $name '^ROOT mount .* overlay '
done
end TERM erofs ext4 tree

boots_alone cpio 4 $memory "root=xget:///images/node.cpio"
boots_alone tar 5 $memory "root=xget:///images/node.tar"
for name in cpio tar; do
    is_up $name
    check "$name: its root is in memory" vm_printed $name '^ROOT mount .* tmpfs '
done
end TERM cpio tar

# ---- a kernel

boots_alone kernel 7 $memory "rd.xget.kernel=vmlinuz rd.xget.initramfs=second.img,payload.img"
boots_alone larger 8 $memory "rd.xget.kernel=vmlinuz rd.xget.initramfs=second.img,larger.img"
boots_alone largest 9 $memory "rd.xget.kernel=vmlinuz rd.xget.initramfs=second.img,largest.img"
check "a kernel starts with two initrds that have little room" vm_prints 240 kernel '^SECOND is up'
check "two that cannot be loaded are told" vm_prints 60 larger \
    'xget: cannot load /run/xget/files/vmlinuz: not enough memory: need [0-9]+ MiB besides the files, [0-9]+ MiB available'
note "$(vm_lines larger | grep -m 1 'cannot load')"
check "two that are too large to fetch are told" vm_prints 60 largest \
    'xget: not enough space in /run/xget/files: need [0-9.]+ MiB, have'
note "$(vm_lines largest | grep -m 1 'not enough space')"
finish
