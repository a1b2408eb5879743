#!/bin/bash
# A kernel and its initrds by kexec, in machines with nothing but xget in their initramfs and little memory: one
# starts it; others are told that it does not fit.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines cpio:cpio

memory=256                          # of each machine, in MiB

# To join the two initrds takes more than a third of a machine's memory, and to load them nearly all of it.
mkdir -p "$work/payload" "$boot" && random_file "$work/payload/large" $((23 << 20))
cp "$vmlinuz" "$boot/vmlinuz"
# As Image.gz is packed, and called something else on the master.
gzip -1 < "$vmlinuz" > "$boot/vmlinuz.gz" && ln -s vmlinuz.gz "$boot/current"
second_initrd "$boot/second.img"
pack "$work/payload" "$boot/payload.img"
random_file "$boot/larger.img" $((36 << 20))
random_file "$boot/largest.img" $((72 << 20))

boot_server || finish
check "an initramfs is made" alone alone.img

boots_alone kernel 7 $memory "rd.xget.kernel=vmlinuz rd.xget.initramfs=second.img,payload.img"
boots_alone larger 8 $memory "rd.xget.kernel=vmlinuz rd.xget.initramfs=second.img,larger.img"
boots_alone largest 9 $memory "rd.xget.kernel=vmlinuz rd.xget.initramfs=second.img,largest.img"
boots_alone packed 10 $memory "rd.xget.kernel=current rd.xget.initramfs=second.img"
check "a kernel starts with two initrds that have little room" vm_prints 240 kernel '^SECOND is up'
check "so does one that is compressed, and named by a link" vm_prints 240 packed '^SECOND is up'
check "two that cannot be loaded are told" vm_prints 60 larger \
    'xget: cannot load /run/xget/files/vmlinuz: not enough memory: need [0-9]+ MiB besides the files, [0-9]+ MiB available'
note "$(vm_lines larger | grep -m 1 'cannot load')"
check "two that are too large to fetch are told" vm_prints 60 largest \
    'xget: not enough space in /run/xget/files: need [0-9.]+ MiB, have'
note "$(vm_lines largest | grep -m 1 'not enough space')"
finish
