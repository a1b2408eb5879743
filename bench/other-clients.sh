#!/bin/bash
# How fast other programs read from a master, beside the same from diod: diodcat on this machine, and dd
# from a mount of the Linux kernel's client in a virtual machine. Both servers take turns. It prints MB/s;
# docs/interop.md has figures.
#
#   bench/other-clients.sh [ROUNDS]     as root on Debian it installs what it needs
. "$(dirname "$0")/../tests/lib.sh"
. "$repo/tests/vm/lib.sh"
need_vm diod:diod diodcat:diod python3:python3
need_xget

rounds=${1:-3}
mib=256
src=$work/src
mkdir "$src"
random_file "$src/image" ${mib}M

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
declare -A port_of
port_of[diod]=$(free_port)
start diod - diod -f -n -S -U root -e "$src" -l "127.0.0.1:${port_of[diod]}" -L "$work/diod.own.log"
start master - "$xget" -p 0 --listen 127.0.0.1 --cache none --rescan 0 "$src"
wait_for 60 grep -q 'serving .* on ' "$(log master)" || { fail "the master starts" "$(log master)"; finish; }
port_of[xget]=$(sed -n 's/.* on 127\.0\.0\.1:\([0-9]*\):.*/\1/p' "$(log master)")

echo "# $mib MiB, load $(cut -d ' ' -f 1-3 /proc/loadavg), $(nproc) processors"
for ((i = 0; i < rounds; i++)); do
    for server in xget diod; do
        before=$(now)
        timeout 120 diodcat -s "127.0.0.1:${port_of[$server]}" -a "$src" image > /dev/null ||
            fail "diodcat reads from $server"
        awk -v s=$server -v t="$before" -v n="$(now)" -v m=$mib 'BEGIN { printf "diodcat %s %.0f MB/s\n", s, m * 1.048576 / (n - t) }'
    done
done

kernels=$target/test-kernel-generic
debian_kernel linux-image-amd64 "$kernels"
guest=$work/guest
busybox_tree "$guest"
add_modules "$guest" "$kernels/root" virtio_pci virtio_net 9p 9pnet_fd
mkdir "$guest/m"
cat > "$guest/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for m in virtio_pci virtio_net 9pnet_fd 9p; do modprobe \$m; done
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
reads() {
    mount -t 9p -o trans=tcp,port=\$2,version=9p2000.L,aname=$src,cache=\$3,msize=\$4 10.0.2.2 /m || echo "SPEED \$* failed"
    began=\$(cut -d ' ' -f 1 /proc/uptime)
    dd if=/m/image of=/dev/null bs=1M count=\$5 2> /dev/null
    echo "SPEED v9fs,cache=\$3,msize=\$4 \$1 \$(awk -v t=\$began -v m=\$5 '{ printf "%.1f MB/s", m * 1.048576 / (\$1 - t) }' /proc/uptime)"
    umount /m
}
i=0
while [ \$i -lt $rounds ]; do
    i=\$((i + 1))
    for how in "none 8192 16" "none 65536 128" "none 1048576 $mib" "loose 131072 64"; do
        reads xget ${port_of[xget]} \$how
        reads diod ${port_of[diod]} \$how
    done
done
echo OVER
poweroff -f
INIT
chmod 755 "$guest/init"
pack "$guest" "$work/guest.img"
vm machine - -m 512 -no-reboot -kernel "$kernels/root/boot/vmlinuz-$version" -initrd "$work/guest.img" \
    -append "console=ttyS0 panic=-1 quiet" -netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile=
vm_prints 400 machine '^OVER' || fail "a machine reads" "$(console machine)"
vm_lines machine | sed -n 's/^SPEED //p' | sort -s -k 1,1
echo "# load $(cut -d ' ' -f 1-3 /proc/loadavg)"
finish
