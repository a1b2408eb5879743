#!/bin/bash
# What xget is for, with real parts: Debian's cloud kernel and an initramfs made for it go to nodes
# over slow links. Some ask the master, some only know another node, and the master is stopped in
# the middle, as soon as every chunk is in the swarm.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need_root
need ip:iproute2 tc:iproute2 nsenter:util-linux file:file dpkg:dpkg depmod:kmod \
    mkinitramfs:initramfs-tools-core busybox:busybox-static cpio:cpio
need_static_busybox
need_xget

mbit=50
kernels=$target/test-kernel         # what was downloaded stays here

# ---- a kernel and an initramfs

debian_kernel linux-image-cloud-amd64 "$kernels"
src=$work/src
mkdir "$src"
cp "$kernels/root/boot/vmlinuz-$version" "$src/vmlinuz"
cp "$kernels/root/boot/config-$version" "$src/"

# by_mkinitramfs FILE: sees the unpacked kernel in a mount namespace of its own as if installed
by_mkinitramfs() {
    local code made_dir=
    [ -d /lib/modules ] || { mkdir /lib/modules && made_dir=yes; }
    TMPDIR=$work unshare -m bash -c 'mount --bind "$1/lib/modules" /lib/modules &&
        mount --bind "$1/boot" /boot && exec mkinitramfs -o "$2" "$3"' - "$kernels/root" "$1" "$version"
    code=$?
    [ -z "$made_dir" ] || rmdir /lib/modules
    return $code
}

# by_hand FILE: busybox and the modules
by_hand() {
    local tree=$work/initramfs
    busybox_tree "$tree" && mkdir "$tree/lib" && cp -a "$kernels/root/lib/modules" "$tree/lib/" &&
        printf '#!/bin/busybox sh\nexec /bin/busybox sh\n' > "$tree/init" && chmod 755 "$tree/init" &&
        pack "$tree" "$1"
}

if by_mkinitramfs "$src/initrd.img" > "$work/initrd.log" 2>&1 && [ -s "$src/initrd.img" ]; then
    made="mkinitramfs"
else
    tail -n 3 "$work/initrd.log"
    by_hand "$src/initrd.img" >> "$work/initrd.log" 2>&1 || fail "an initramfs is made" "$work/initrd.log"
    made="busybox and cpio"
fi
ln -s vmlinuz "$src/kernel"
note "kernel $version, $(stat -c %s "$src/vmlinuz") bytes; initramfs by $made, $(stat -c %s "$src/initrd.img") bytes"

# An image may begin with a small archive of microcode; lsinitramfs knows all of that.
initramfs_has_init() { lsinitramfs "$1" | grep -x 'init'; }

# ---- the nodes

net_up 6 $mbit 2> "$work/tc.log" || {
    skip "slow links" "a kernel with sch_htb (modprobe sch_htb)"; finish; }
master 0 "$src" || { fail "the master starts" "$(log master)"; finish; }

# Nodes 1 to 4 know the master. In the middle come node 5, which knows node 1, and node 6, which
# knows node 5: a chain.
for i in 1 2 3 4; do
    start n$i $i "$xget" -n "$(ip_of 0)" -q -D 1 --serve forever vmlinuz initrd.img config-"$version" "$work/n$i"
done
node_1_has_a_third() {
    status 1 "$(ip_of 1):$port" | grep -o 'held=[0-9/]*' | awk -F '[=/]' '{ exit !(3 * $2 >= $3) }'
}
wait_for 30 node_1_has_a_third
start n5 5 "$xget" -n "$(ip_of 1)" -q -D 1 --serve forever vmlinuz initrd.img "$work/n5"
wait_for 30 status 5 "$(ip_of 5):$port"
start n6 6 "$xget" -n "$(ip_of 5)" -q -D 1 --serve forever vmlinuz initrd.img "$work/n6"

check "every chunk gets into the swarm" wait_for 60 nothing_only_here 0
sent=$(status 0 | field sent_bytes) image=$(status 0 | field image_bytes)
end KILL master
missing=0
for i in 1 2 3 4 5 6; do is_whole n$i || missing=$((missing + 1)); done
note "the master is stopped; it sent $(awk -v a="$sent" -v b="$image" 'BEGIN { printf "%.2f", a / b }') images, and $missing of 6 nodes were not whole"
check "somebody still lacked something" [ $missing -gt 0 ]
if all_whole 60 n1 n2 n3 n4; then pass "the 4 nodes that knew the master finish without it"; else
    fail "the 4 nodes that knew the master finish without it" "$work"/n[1-4].log; fi
if all_whole 60 n5 n6; then pass "the nodes that knew only another node finish too"; else
    fail "the nodes that knew only another node finish too" "$work"/n[56].log; fi
note "node 1: $(summary n1)"
note "node 6: $(summary n6)"

# ---- what has come

for i in 1 2 3 4 5 6; do
    check "node $i has the same kernel and initramfs" sh -c \
        "cd '$src' && sha256sum vmlinuz initrd.img | (cd '$work/n$i' && sha256sum -c --quiet)"
done
check "the kernel is a kernel: $(file -bL "$work/n6/vmlinuz" | cut -c 1-60)" \
    sh -c "file -bL '$work/n6/vmlinuz' | grep -q 'Linux kernel.*boot executable.*$version'"
check "the initramfs can be read, and holds an init" initramfs_has_init "$work/n6/initrd.img"
finish
