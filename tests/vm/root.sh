# shellcheck shell=bash
# Helpers for tests of machines that boot a root from the network, after lib.sh beside this.

# need_machines COMMAND:PACKAGE...: what these tests need, and that; $kernels, $version and $vmlinuz
need_machines() {
    need_root
    need_taps
    need_vm ip:iproute2 nsenter:util-linux dnsmasq:dnsmasq-base depmod:kmod zstd:zstd mksquashfs:squashfs-tools "$@"
    need_xget
    need_static
    kernels=$target/test-kernel
    debian_kernel linux-image-cloud-amd64 "$kernels"
    vmlinuz=$kernels/root/boot/vmlinuz-$version
}

# What the boot server serves: the image of a root whose init says where it is, and stays; and the same
# as an archive.
boot=$work/boot
image=images/node.squashfs
archive=images/node.tar.gz

make_image() {
    local root=$work/root
    busybox_tree "$root"
    mkdir -p "$root"/{sbin,run,sysroot,etc,usr,var} "$boot/images"
    # systemd switches to nothing that does not say what it is.
    echo NAME=node > "$root/etc/os-release"
    cat > "$root/sbin/init" <<'INIT'
#!/bin/busybox sh
busybox=/bin/busybox
[ -e /proc/1 ] || $busybox mount -t proc proc /proc
echo "ROOT is up"
echo "ROOT mount $($busybox grep ' / ' /proc/mounts)"
$busybox touch /written && echo "ROOT can be written"
for process in /proc/[0-9]*; do
    case $($busybox tr '\0' ' ' < $process/cmdline) in @xget*) echo "ROOT has a resident" ;; esac
done
$busybox dmesg | $busybox grep 'xget: ' | $busybox sed 's/^/ROOT dmesg /'
while :; do $busybox sleep 1; done
INIT
    chmod 755 "$root/sbin/init"
    tar -C "$root" --owner=0 --group=0 -czf "$boot/$archive" . &&
        mksquashfs "$root" "$boot/$image" -noappend -quiet -no-progress -all-root
}

# boot_server: a switch with a DHCP server and a master on host 0
boot_server() {
    make_image > "$work/image.log" 2>&1 || { fail "an image is made" "$work/image.log"; return 1; }
    net_up 0 || { fail "a switch and a boot server are made"; return 1; }
    dnsmasq_on_switch || return 1
    master 0 "$boot" || { fail "the master starts" "$(log master)"; return 1; }
}

# dnsmasq_on_switch: host 0 gives addresses, and is named as the boot server
dnsmasq_on_switch() {
    cat > "$work/dnsmasq.conf" <<END
port=0
no-ping
interface=eth0
bind-interfaces
dhcp-range=$(ip_of 100),$(ip_of 200),1h
END
    dnsmasq_on 0 "$work/dnsmasq.conf" || { fail "dnsmasq starts" "$(log dnsmasq)"; return 1; }
}

# boots NAME N WORDS [KIND]: machine N boots from the initramfs NAME.img with these words, to a root of
# that kind (overlay); judged by its console
boots() {
    local kind=${4:-overlay}
    # Where others keep the processors busy the kernel finds the machine's timer broken, and gives up.
    vm_on_switch "$1" "$2" -m 768 -no-reboot -kernel "$vmlinuz" -initrd "$work/$1.img" \
        -append "console=ttyS0 no_timer_check panic=-1 quiet rd.shell=0 rd.emergency=poweroff $3"
    if vm_prints 240 "$1" '^ROOT can be written'; then pass "$1: a machine boots from its image"; else
        fail "$1: a machine boots from its image" "$(console "$1")" "$(log "$1")"
    fi
    check "$1: its root is of the kind $kind" vm_printed "$1" "^ROOT mount .* $kind "
    check "$1: the resident is there after the switch" vm_prints 30 "$1" '^ROOT has a resident'
}

# alone FILE [OPTION...]: stage one's initramfs with what a machine needs to boot a root by xget alone
alone() {
    local file=$1; shift
    "$repo/initramfs/stage1/make-stage1" --xget "$static_node" -o "$work/$file" \
        --modules "$version:$kernels/root" virtio_pci virtio_net loop squashfs overlay "$@"
}

# boots_alone NAME N MIB WORDS [OPTION...]: machine N boots from alone.img, or from $initrd
boots_alone() {
    vm_on_switch "$1" "$2" "${@:5}" -m "$3" -no-reboot -kernel "$vmlinuz" -initrd "$work/${initrd:-alone.img}" \
        -append "console=ttyS0 no_timer_check panic=-1 quiet $4"
}

# is_up NAME: does it boot from its image, in the time that a busy machine may need?
is_up() {
    if vm_prints 240 "$1" '^ROOT has a resident'; then pass "$1 has its root, and serves it"; else
        fail "$1 has its root, and serves it" "$(console "$1")" "$(log "$1")"
    fi
}

address_of() { sed -n "s/.*DHCPACK([^)]*) \([0-9.]*\) $(mac_of "$1").*/\1/p" "$(log dnsmasq)" | tail -n 1; }

# fetches_from N: a copy of the image, from that machine
fetches_from() {
    nsenter "--net=/run/netns/$(ns 0)" timeout $((60 * ${XGET_PATIENCE:-1})) "$xget" -n "$(address_of "$1"):$port" -q --serve no -r 2 \
        "$image" "$work/copy$1" && cmp "$work/copy$1/node.squashfs" "$boot/$image"
}
