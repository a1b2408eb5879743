#!/bin/bash
# The PXE chain of docs/pxe.md, with the files of docs/examples/pxe: machines boot from the network, by
# iPXE, PXELINUX and GRUB from a BIOS and by iPXE from UEFI, into a first kernel and the initramfs of
# stage one. There xget gets an address, fetches the real kernel and its initrds, and boots that kernel.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need_root
need_taps
need_vm ip:iproute2 nsenter:util-linux dnsmasq:dnsmasq-base depmod:kmod zstd:zstd xz:xz-utils \
    /usr/lib/PXELINUX/pxelinux.0:pxelinux /usr/lib/syslinux/modules/bios/ldlinux.c32:syslinux-common \
    grub-mknetdir:grub-common /usr/lib/grub/i386-pc/moddep.lst:grub-pc-bin \
    /usr/lib/ipxe/ipxe.efi:ipxe /usr/share/OVMF/OVMF_CODE.fd:ovmf
need_xget
need_static

examples=$repo/docs/examples/pxe
kernels=$target/test-kernel         # what was downloaded stays here
most_seconds=480                    # for all machines; the processors may be busy
most_bytes=$((1 << 20))             # for stage one with nothing but xget

debian_kernel linux-image-cloud-amd64 "$kernels"
vmlinuz=$kernels/root/boot/vmlinuz-$version

# ---- stage one

# stage1 FILE OPTION...
stage1() {
    local file=$1; shift
    "$repo/initramfs/stage1/make-stage1" --xget "$static_node" -o "$work/$file" "$@"
}
# unpacked HOW: that archive, as a plain one
unpacked() { case $1 in none) cat ;; *) "$1" -dc ;; esac < "$work/alone.$1"; }
names_in() { zcat "$work/$1" | cpio -t --quiet; }

check "the initramfs of stage one is made" stage1 alone.gzip
note "$(cat "$work/check.out")"
check "with nothing but xget it is at most $most_bytes bytes" [ "$(stat -c %s "$work/alone.gzip")" -le $most_bytes ]
for how in none xz zstd; do
    stage1 alone.$how --compress $how > "$work/$how.log" 2>&1
    check "$how holds the same, in $(stat -c %s "$work/alone.$how") bytes" \
        cmp <(unpacked gzip) <(unpacked $how)
done

printf 'untrusted comment: a key\n' > "$work/key.pub"
everything=(--modules "$version:$kernels/root" virtio_pci virtio_net --busybox --key "$work/key.pub" --cmdline rd.xget.debug)
check "all that can be in it is put in" stage1 full.img "${everything[@]}"
note "$(cat "$work/check.out")"
sleep 1
stage1 again.img "${everything[@]}" > /dev/null
check "the same input gives the same bytes" cmp "$work/full.img" "$work/again.img"
for name in init bin/sh etc/xget/key.pub etc/xget/cmdline; do
    check "$name is in it" grep -qx $name <(names_in full.img)
done
# ordered MODULE...: are they there in this order, among others?
ordered() { names_in full.img | sed -n 's,^lib/modules/xget/[0-9]*-,,p' | grep -xF "$(printf '%s\n' "$@")" | diff - <(printf '%s\n' "$@"); }
check "modules come after those that they need" ordered virtio_ring.ko virtio.ko virtio_pci.ko net_failover.ko virtio_net.ko
refuses_dynamic() { ! "$repo/initramfs/stage1/make-stage1" --xget /bin/bash -o "$work/bad.img" && [ ! -e "$work/bad.img" ]; }
check "a program that is not static is refused" refuses_dynamic

# ---- the boot server: what comes by TFTP, and what comes by xget

tftp=$work/tftp
cp -r "$examples/tftp" "$tftp"
cp /usr/lib/PXELINUX/pxelinux.0 /usr/lib/syslinux/modules/bios/ldlinux.c32 \
    /usr/lib/ipxe/ipxe.efi "$tftp/"
cp "$vmlinuz" "$tftp/vmlinuz"
grub-mknetdir -d /usr/lib/grub/i386-pc --net-directory="$tftp" --subdir=grub > "$work/grub.log" 2>&1 ||
    fail "GRUB is made" "$work/grub.log"
cp "$examples/tftp/grub/grub.cfg" "$tftp/grub/"
stage1 tftp/stage1.img --modules "$version:$kernels/root" virtio_pci virtio_net \
    --cmdline "rd.xget.kernel=vmlinuz rd.xget.initramfs=initrd.img" > "$work/stage1.log" 2>&1 ||
    fail "stage one for the machines is made" "$work/stage1.log"
note "by TFTP: kernel $version, $(stat -c %s "$vmlinuz") bytes, and $(sed 's,.*/,,' "$work/stage1.log")"

boot=$work/boot
mkdir "$boot"
cp "$vmlinuz" "$boot/vmlinuz"
second_initrd "$boot/initrd.img"
mkdir "$work/overlay"
echo "of a second initrd" > "$work/overlay/overlay"
pack "$work/overlay" "$boot/overlay.img"

net_up 0 || { fail "a switch and a boot server are made"; finish; }
# The ROM of a machine with a BIOS is iPXE, which would always be given its script.
sed "s,/srv/tftp,$tftp," "$examples/dnsmasq.conf" > "$work/dnsmasq.conf"
cat >> "$work/dnsmasq.conf" <<END
dhcp-host=$(mac_of 2),set:pxelinux
dhcp-host=$(mac_of 3),set:grub
dhcp-boot=tag:pxelinux,pxelinux.0
dhcp-boot=tag:grub,grub/i386-pc/core.0
END
dnsmasq_on 0 "$work/dnsmasq.conf" || { fail "dnsmasq takes the configuration" "$(log dnsmasq)"; finish; }
master 0 "$boot" || { fail "the master starts" "$(log master)"; finish; }

# ---- the machines

loaders=(- ipxe pxelinux grub uefi)
sed -i 's/ rd.xget.append=/ rd.xget.initramfs=overlay.img&/' "$tftp/pxelinux.cfg/default"
cp /usr/share/OVMF/OVMF_VARS.fd "$work/"
uefi=(-drive "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd"
    -drive "if=pflash,format=raw,file=$work/OVMF_VARS.fd" -global virtio-net-pci.romfile=)
began=$SECONDS
for i in 1 2 3 4; do
    options=()
    [ "${loaders[i]}" != uefi ] || options=("${uefi[@]}")
    vm_on_switch "${loaders[i]}" $i -m 512 -boot n,reboot-timeout=2000 "${options[@]}"
done

first_cmdline() { vm_lines "$1" | sed -n 's/.*Kernel command line: //p' | head -n 1; }
cmdline() { vm_lines "$1" | sed -n 's/^SECOND cmdline //p'; }
# has NAME REGEX: is that a word of the second kernel's command line?
has() { cmdline "$1" | tr ' ' '\n' | grep -ixE "$2"; }
has_both_consoles() { has "$1" console=tty0 && has "$1" console=ttyS0,115200; }
lacks() { ! has "$@"; }
ends_in() { [[ $(cmdline "$1") = *" $2" ]]; }

# judge NAME MAC
judge() {
    note "first:  $(first_cmdline "$1")"
    note "second: $(cmdline "$1")"
    check "$1: its command line ends in what was to be appended" ends_in "$1" "root=/dev/sda2 ro quiet"
    check "$1: the consoles are kept" has_both_consoles "$1"
    check "$1: BOOTIF is kept" has "$1" "BOOTIF=01-(${2//:/-}|$2)"
    check "$1: nothing is left of the first kernel's files, or of xget's options" \
        lacks "$1" '(initrd|BOOT_IMAGE|rd\.xget\..*)=.*'
}

for i in 1 2 3 4; do
    name=${loaders[i]}
    if vm_prints $((most_seconds + began - SECONDS)) "$name" '^SECOND is up'; then
        pass "$name: the second kernel is up, after $((SECONDS - began)) s"
        judge "$name" "$(mac_of $i)"
    else
        fail "$name: the second kernel is up" "$(console "$name")" "$(log "$name")"
    fi
    check "$name: xget asked for an address, after the loader had" [ "$(leases_of $i)" -ge 2 ]
done
check "two initrds are joined" vm_printed pxelinux '^SECOND overlay of a second initrd'
note "the master sent $(status 0 | field sent_bytes) bytes of $(status 0 | field image_bytes)"

# ---- what cannot work

# With a shell in stage one, somebody can look.
vm lost - -m 256 -no-reboot -kernel "$vmlinuz" -initrd "$work/full.img" \
    -append "console=ttyS0 panic=-1 quiet rd.xget.kernel=vmlinuz rd.xget.net=nonsense"
check "a bad word on the command line is named" vm_prints 90 lost "$said.*rd\.xget\.net=nonsense"
check "and there is a shell" vm_prints 30 lost '^BusyBox v'
finish
