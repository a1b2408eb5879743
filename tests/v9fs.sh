#!/bin/bash
# The Linux kernel's own 9P client, in a virtual machine with Debian's kernel: it mounts the master's
# tree in all three dialects, reads every file, and is refused every change.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need_vm
need_xget

kernels=$target/test-kernel-generic         # what was downloaded stays here; cloud kernels lack 9p
most_seconds=240

# ---- a kernel and an initramfs that mounts, looks, and prints what it finds

debian_kernel linux-image-amd64 "$kernels"

guest=$work/guest
busybox_tree "$guest"
add_modules "$guest" "$kernels/root" virtio_pci virtio_net 9p 9pnet_fd
mkdir "$guest/m"
cat > "$guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for m in virtio_pci virtio_net 9pnet_fd 9p; do modprobe $m || echo "no module $m"; done
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
for word in $(cat /proc/cmdline); do case $word in xport=*) xport=${word#xport=} ;; esac; done
reason() { sed 's/.*: //'; }
look() {
    o=trans=tcp,port=$xport,version=$1,cache=$2,msize=$3
    mount -t 9p -o $o 10.0.2.2 /m 2> /tmp/e || { echo "LOOK $* mount: $(reason < /tmp/e)"; return; }
    echo "LOOK $* names $(cd /m && find . | sort | md5sum | cut -c 1-32)"
    echo "LOOK $* contents $(cd /m && find . -type f | sort | tr '\n' '\0' | xargs -0 md5sum | md5sum | cut -c 1-32)"
    echo "LOOK $* link $(readlink /m/boot/link)"
    echo "LOOK $* touch $(touch /m/new 2>&1 | reason)"
    echo "LOOK $* write $( (echo x > /m/boot/small) 2>&1 | reason)"
    echo "LOOK $* unlink $(rm /m/boot/small 2>&1 | reason)"
    echo "LOOK $* missing $(cat /m/nowhere 2>&1 | reason)"
    echo "LOOK $* status $(cut -c 1-11 /m/.xget/status)"
    umount /m
}
for version in 9p2000.L 9p2000.u 9p2000; do
    look $version none 8192
    look $version none 1048576
    look $version loose 131072
done
echo LOOKED
poweroff -f
INIT
chmod 755 "$guest/init"
pack "$guest" "$work/guest.img"

# ---- what is served

src=$work/src
mkdir -p "$src/boot" "$src/many" "$src/empty"
random_file "$src/boot/kernel" 3000000
echo small > "$src/boot/small"
: > "$src/boot/nothing"
ln -s ../boot/kernel "$src/boot/link"
for i in $(seq 500); do echo "$i" > "$src/many/file-with-a-longer-name-$i"; done
names=$(cd "$src" && find . | LC_ALL=C sort | md5sum | cut -c 1-32)
contents=$(cd "$src" && find . -type f | LC_ALL=C sort | tr '\n' '\0' | xargs -0 md5sum | md5sum | cut -c 1-32)
# Plain 9P2000 knows no links: there the link is a file that holds its target.
mkdir "$work/plain"
cp -a "$src/." "$work/plain/" && rm "$work/plain/boot/link" && printf ../boot/kernel > "$work/plain/boot/link"
plain=$(cd "$work/plain" && find . -type f | LC_ALL=C sort | tr '\n' '\0' | xargs -0 md5sum | md5sum | cut -c 1-32)

start master - "$xget" -p 0 --listen 127.0.0.1 --cache none "$src"
wait_for 30 grep -q 'serving .* on ' "$(log master)" || { fail "the master starts" "$(log master)"; finish; }
port=$(sed -n 's/.* on 127\.0\.0\.1:\([0-9]*\):.*/\1/p' "$(log master)")

# ---- the machine

vm machine - -m 512 -no-reboot -kernel "$kernels/root/boot/vmlinuz-$version" -initrd "$work/guest.img" \
    -append "console=ttyS0 panic=-1 quiet xport=$port" \
    -netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile=
if vm_prints $most_seconds machine '^LOOKED'; then pass "a machine with kernel $version boots and looks at the tree"; else
    fail "a machine with kernel $version boots and looks at the tree" "$(console machine)" "$(log machine)"; fi
vm_lines machine | grep -a '^LOOK ' > "$work/looks"

# seen DIALECT CACHE MSIZE WHAT VALUE
seen() { grep -qxF "LOOK $1 $2 $3 $4 $5" "$work/looks" || { grep -F "LOOK $1 $2 $3 $4" "$work/looks"; return 1; }; }

for version in 9p2000.L 9p2000.u 9p2000; do
    refusal="Read-only file system" all=$contents target_of_link=../boot/kernel
    [ $version != 9p2000 ] || { refusal="Operation not permitted" all=$plain target_of_link=; }
    for how in "none 8192" "none 1048576" "loose 131072"; do
        # shellcheck disable=SC2086 # two words
        set -- $version $how
        check "$* lists every name" seen "$@" names "$names"
        check "$* reads every byte" seen "$@" contents "$all"
        check "$* follows links as its dialect can" seen "$@" link "$target_of_link"
        for change in touch write unlink; do
            check "$* is refused to $change" seen "$@" $change "$refusal"
        done
        check "$* is told what is not there" seen "$@" missing "No such file or directory"
    done
    check "$version reads a control file" seen $version none 8192 status "generation="
done
finish
