# shellcheck shell=bash
# Helpers for the tests with virtual machines, after ../lib.sh: . "$(dirname "$0")/vm/lib.sh"
#
# A machine is known by its name, as all that `start` starts. It talks over its serial console, which
# is the file `console NAME`; a test waits for a line there with `vm_prints`. Nothing here needs an
# accelerated QEMU.

# need_vm [COMMAND:PACKAGE...]: what all of this needs, and that
need_vm() {
    need qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio dpkg:dpkg modprobe:kmod "$@"
    need_static_busybox
}

# need_static_busybox: the other one of Debian's runs nowhere but here
need_static_busybox() {
    wants_libraries busybox || return 0
    apt_install busybox-static && hash -r && ! wants_libraries busybox && return
    skip "$test_name: a busybox that needs no libraries" "apt-get install busybox-static"
    finish
}
wants_libraries() { ldd "$(command -v "$1")" > /dev/null 2>&1; }

need_taps() {
    [ -c /dev/net/tun ] && return
    skip "$test_name puts machines onto a network" "a kernel with /dev/net/tun"
    finish
}

# need_static: builds the static node, which an initramfs holds; XGET_NODE names another one
static_node=${XGET_NODE:-$target/static/xget-node}
need_static() {
    [ -z "${XGET_NODE:-}" ] || return 0
    # musl makes it small.
    [ "$("$repo/static/build" --which)" != glibc ] || apt_install rustc-web rust-web-src musl-tools gcc libc6-dev
    (cd "$repo" && CARGO_TARGET_DIR=$target static/build) > "$work/static.log" 2>&1 ||
        { fail "make static" "$work/static.log"; finish; }
}

# ---- what machines boot

# busybox_tree DIR: the directories of a root, and busybox; the init is the test's
busybox_tree() {
    mkdir -p "$1"/{bin,dev,proc,sys,tmp} && cp "$(command -v busybox)" "$1/bin/busybox"
}

# add_modules DIR ROOT NAME...: the modules of $version that lie below ROOT, and what they need
add_modules() {
    local dir=$1 root=$2 name file; shift 2
    for name; do
        modprobe -d "$root" -S "$version" --show-depends "$name" | awk '$1 == "insmod" { print $2 }' |
            while read -r file; do
                mkdir -p "$dir$(dirname "${file#"$root"}")" && cp -n "$file" "$dir${file#"$root"}"
            done
    done
    cp "$root/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$dir/lib/modules/$version/"
    depmod -b "$dir" "$version"
}

# pack DIR FILE: as an initramfs
pack() { (cd "$1" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) > "$2"; }

# second_initrd FILE: of a kernel that another one has started: it says what it is, and powers off
second_initrd() {
    local root=$work/second
    busybox_tree "$root"
    cat > "$root/init" <<'INIT'
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
echo "SECOND kernel $($busybox uname -r)"
echo "SECOND cmdline $($busybox cat /proc/cmdline)"
echo "SECOND overlay $($busybox cat /overlay)"
echo "SECOND is up"
$busybox poweroff -f
INIT
    chmod 755 "$root/init"
    pack "$root" "$1"
}

# ---- machines

console() { echo "$work/$1.console"; }

# The plainest one boots in the least time where it is emulated. A random number is what kernels wait for.
processor=qemu64,+rdrand

# vm NAME HOST OPTION...: starts one, with QEMU in that host's namespace (- is none). With keys=FILE what
# `type_in FILE` says is typed on its console.
vm() {
    local name=$1 host=$2 serial; shift 2
    : > "$(console "$name")"
    serial=(-serial "file:$(console "$name")")
    [ -z "${keys:-}" ] ||
        serial=(-chardev "pipe,id=console,path=$keys,logfile=$(console "$name")" -serial chardev:console)
    start "$name" "$host" qemu-system-x86_64 -machine pc,accel=tcg -cpu "$processor" -nodefaults \
        -display none "${serial[@]}" "$@"
}

# keyboard FILE: for a machine with keys=FILE; what it shows is in its console's file alone
keyboard() { mkfifo "$1.in" && ln -s /dev/null "$1.out"; }
type_in() { printf '%b' "$2" > "$1.in"; }

# vm_printed NAME REGEX: is there such a line on its console?
vm_printed() { grep -aqE "$2" "$(console "$1")"; }

# vm_prints SECONDS NAME REGEX: waits for the line; false if there is none by then, or by its end
vm_prints() {
    # A machine takes long, and processes that look at it take time from it.
    local pause=0.3
    wait_for "$1" vm_printed_or_over "$2" "$3"
    vm_printed "$2" "$3"
}

vm_printed_or_over() { vm_printed "$@" || is_over "$1"; }

# How a line of xget begins on a console. Errors are printed by the kernel, and so with the time.
said='^(\[ *[0-9.]+\] )?xget: '

# vm_lines NAME: what it printed, as plain lines
vm_lines() { tr -d '\r' < "$(console "$1")" | sed 's/\x1b\[[0-9;?]*[a-zA-Z]//g'; }

# vm_seconds NAME: of processor time that it has used
vm_seconds() { awk '{ sub(/^.*\) /, ""); printf "%.0f", ($12 + $13) / 100 }' "/proc/${pid[$1]}/stat"; }

# ---- machines on the switch of net_up

mac_of() { printf '52:54:00:20:00:%02x' "$1"; }

# vm_on_switch NAME N OPTION...: machine N, with one network card on the switch, which it may boot from
vm_on_switch() {
    local name=$1 n=$2; shift 2
    add_tap "tap$n" || return 1
    vm "$name" sw -netdev "tap,id=n0,ifname=tap$n,script=no,downscript=no" \
        -device "virtio-net-pci,netdev=n0,bootindex=1,mac=$(mac_of "$n")" "$@"
}

add_tap() {
    ip -n "$(ns sw)" tuntap add "$1" mode tap && ip -n "$(ns sw)" link set "$1" master br0 up
}

# dnsmasq_on HOST FILE: gives addresses and files as that configuration says
dnsmasq_on() {
    start dnsmasq "$1" dnsmasq -d -C "$2" --user=root --log-dhcp --dhcp-leasefile="$work/leases"
    wait_for 10 grep -q 'started, version' "$(log dnsmasq)"
}

# leases_of N: how often that machine has been given an address
leases_of() { grep -c "DHCPACK.* $(mac_of "$1")" "$(log dnsmasq)"; }
