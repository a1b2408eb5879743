#!/bin/bash
# Boots a virtual machine in QEMU whose root comes by xget from a master on this machine, and shows what it says.
# Needs no root, installs nothing, and leaves nothing behind but what it builds and downloads in target/.
#
#   demo/boot.sh            XGET=path/to/xget to serve with another binary
set -u -o pipefail

test_name=demo
work=$(mktemp -d "${TMPDIR:-/tmp}/xget-boot.XXXXXX") || exit 1
. "$(dirname "$0")/../lab/hosts.sh"
PATH=$PATH:/usr/sbin:/sbin
limit=180                           # seconds for the machine to have its root

die() { echo "demo: $1" >&2; shift; for log; do tail -n 20 "$log" >&2; done; exit 1; }
skip() { die "$1 is missing: $2"; }
fail() { die "$@"; }
finish() { exit 1; }
clean_up() {
    end KILL "${!pid[@]}"
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# ---- what is needed

[ "$(uname -m)" = x86_64 ] || die "this demo is for x86-64"
missing=()
for pair in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio gzip:gzip depmod:kmod; do
    is_here "${pair%%:*}" || missing+=("${pair#*:}")
done
busybox=$(command -v busybox)
[ -z "$busybox" ] || ! ldd "$busybox" > /dev/null 2>&1 || missing+=(busybox-static)
[ ${#missing[@]} -eq 0 ] || die "missing: ${missing[*]} (on Debian: apt-get install ${missing[*]})"
need_xget

# A kernel and its modules: this machine's, or Debian's, which is downloaded and not installed.
version=$(uname -r) root=
vmlinuz=/boot/vmlinuz-$version
if [ ! -r "$vmlinuz" ] || [ ! -e "/lib/modules/$version/modules.dep" ]; then
    echo "This machine's own kernel cannot be read; Debian's is downloaded into $target."
    is_here apt-get || die "a kernel: /boot/vmlinuz-$version and /lib/modules/$version cannot be read, and there is no apt-get"
    unpack_kernel linux-image-cloud-amd64 "$target/test-kernel" || die "a kernel cannot be downloaded" "$work/kernel.log"
    root=$target/test-kernel/root
    vmlinuz=$root/boot/vmlinuz-$version
fi

echo "The static program for the machine is built (the first time this takes some minutes) ..."
"$repo/static/build" xget-node > "$work/static.log" 2>&1 || die "it cannot be built" "$work/static.log"

# ---- a root, an initramfs, a master

mkdir -p "$work/tree"/{bin,dev,proc,sys,run,tmp,sbin} "$work/boot"
cp "$busybox" "$work/tree/bin/busybox"
cat > "$work/tree/sbin/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox echo "The root is up."
exec /bin/busybox sleep 1000000
INIT
chmod 755 "$work/tree/sbin/init"
tar -C "$work/tree" --owner=0 --group=0 -cf "$work/boot/root.tar" .

"$repo/initramfs/stage1/make-stage1" --xget "$target/static/xget-node" -o "$work/machine.img" \
    --modules "$version${root:+:$root}" virtio_pci virtio_net > "$work/stage1.log" 2>&1 ||
    die "the initramfs cannot be made" "$work/stage1.log"

start master - "$xget" -p 0 --listen 127.0.0.1 --cache none "$work/boot"
wait_for 30 grep -q '^xget: generation' "$(log master)" || die "the master does not start" "$(log master)"
master_port=$(sed -n 's/^xget: serving .* on [^ ]*:\([0-9]*\): .*/\1/p' "$(log master)")

# ---- the machine

echo "A machine boots, with this on its kernel command line: root=xget://10.0.2.2:$master_port/root.tar"
: > "$work/console"
start machine - qemu-system-x86_64 -machine pc,accel=tcg -cpu max -m 512 -nodefaults -display none -no-reboot \
    -serial "file:$work/console" -nic user,model=virtio-net-pci -kernel "$vmlinuz" -initrd "$work/machine.img" \
    -append "console=ttyS0 no_timer_check panic=-1 quiet root=xget://10.0.2.2:$master_port/root.tar"
booted() { grep -aq 'The root is up' "$work/console" || is_over machine; }
wait_for $limit booted
console() { tr -d '\r' < "$work/console" | grep -aE '^(\[[ 0-9.]*\] )?(xget: |The root)' | sed 's/^/  /'; }
console
grep -aq 'The root is up' "$work/console" ||
    die "the machine has not booted within $limit s; its console ends so:" "$work/console" "$(log machine)"
echo
echo "It has fetched its root from the master on this machine, verified it, and started it."
echo "docs/tutorial.md does this step by step; docs/boot.md adds xget to the initramfs of your distribution."
