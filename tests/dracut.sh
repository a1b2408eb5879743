#!/bin/bash
# dracut's initramfs with the module of dracut-module/: a machine boots from a squashfs image by
# root=xget://, and goes on serving it from its real root.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need_root
need_taps
need_vm ip:iproute2 nsenter:util-linux dnsmasq:dnsmasq-base depmod:kmod zstd:zstd mksquashfs:squashfs-tools \
    dracut:dracut-core
need_xget
need_static

kernels=$target/test-kernel
debian_kernel linux-image-cloud-amd64 "$kernels"
vmlinuz=$kernels/root/boot/vmlinuz-$version

# ---- the image: a root whose init says where it is

root=$work/root
busybox_tree "$root"
mkdir -p "$root"/{sbin,run,sysroot,etc,usr,var}
cat > "$root/sbin/init" <<'INIT'
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
echo "ROOT is up"
echo "ROOT mount $($busybox grep ' / ' /proc/mounts)"
$busybox touch /written && echo "ROOT can be written"
for process in /proc/[0-9]*; do
    case $($busybox tr '\0' ' ' < $process/cmdline) in @xget*) echo "ROOT has a resident" ;; esac
done
while :; do $busybox sleep 1; done
INIT
chmod 755 "$root/sbin/init"
# systemd switches to nothing that does not say what it is.
echo NAME=node > "$root/etc/os-release"
boot=$work/boot
mkdir -p "$boot/images"
mksquashfs "$root" "$boot/images/node.squashfs" -noappend -quiet -no-progress -all-root > "$work/squashfs.log" 2>&1 ||
    { fail "an image is made" "$work/squashfs.log"; finish; }

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

# ---- a switch, a boot server, machines

net_up 0 || { fail "a switch and a boot server are made"; finish; }
cat > "$work/dnsmasq.conf" <<END
port=0
no-ping
interface=eth0
bind-interfaces
dhcp-range=$(ip_of 100),$(ip_of 200),1h
END
dnsmasq_on 0 "$work/dnsmasq.conf" || { fail "dnsmasq starts" "$(log dnsmasq)"; finish; }
master 0 "$boot" || { fail "the master starts" "$(log master)"; finish; }

# machine NAME N INITRAMFS WORDS
machine() {
    vm_on_switch "$1" "$2" -m 768 -no-reboot -kernel "$vmlinuz" -initrd "$work/$3" \
        -append "console=ttyS0 panic=-1 quiet rd.shell=0 rd.emergency=poweroff $4"
}

# boots NAME N
boots() {
    machine "$1" "$2" "$1.img" "root=xget:///images/node.squashfs"
    if vm_prints 240 "$1" '^ROOT can be written'; then pass "$1: a machine boots from its image"; else
        fail "$1: a machine boots from its image" "$(console "$1")" "$(log "$1")"
    fi
    check "$1: its root is an overlay" vm_printed "$1" '^ROOT mount .* overlay '
    check "$1: the resident is there after the switch" vm_prints 30 "$1" '^ROOT has a resident'
}

address_of() { sed -n "s/.*DHCPACK([^)]*) \([0-9.]*\) $(mac_of "$1").*/\1/p" "$(log dnsmasq)" | tail -n 1; }

# fetches_from N: a copy of the image, from that machine
fetches_from() {
    nsenter "--net=/run/netns/$(ns 0)" timeout 60 "$xget" -n "$(address_of "$1"):$port" -q --serve no -r 2 \
        images/node.squashfs "$work/copy$1" && cmp "$work/copy$1/node.squashfs" "$boot/images/node.squashfs"
}

boots plain 1
boots systemd 2
end TERM master
check "plain: with the master gone it serves its image" fetches_from 1
check "systemd: with the master gone it serves its image" fetches_from 2
finish
