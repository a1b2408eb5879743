#!/bin/bash
# Machines that boot their roots over one bridge, from an initramfs that holds nothing but xget and
# modules: four at once from one master, which sends little more than one image, and others when the
# master is gone, from those.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines tc:iproute2

machines=4
image_bytes=$((32 << 20))
memory=256                          # of each machine, in MiB

mkdir -p "$work/root" "$work/next" "$boot/images"
random_file "$work/root/payload" $image_bytes
random_file "$boot/images/small" 1000
# The next kernel, and what it goes on with.
cp "$vmlinuz" "$boot/vmlinuz"
busybox_tree "$work/next"
random_file "$work/next/payload" $((image_bytes / 2))
printf '#!/bin/busybox sh\n/bin/busybox echo NEXT kernel is up\n/bin/busybox poweroff -f\n' > "$work/next/init"
chmod 755 "$work/next/init"
pack "$work/next" "$boot/initrd.img"
boot_server || finish
# As in a cluster, the master's link is what all wait for, not the processors that emulate the machines.
shape 0 eth0 40 || { fail "the master's link is shaped"; finish; }
check "an initramfs with nothing but xget and modules is made" alone alone.img

# judge_sent BEFORE FILE...: of these files the master has sent little more than once since BEFORE
judge_sent() {
    local sent whole
    sent=$(($(status 0 | field sent_bytes) - $1)) whole=$(cat "${@:2}" | wc -c)
    check "the master sent $sent bytes, at most 1.5 times the $whole that $machines machines wanted" \
        [ "$sent" -le $((whole * 3 / 2)) ]
}

# ---- all at once

fleet() { seq -f "$1%g" $machines; }
for ((i = 1; i <= machines; i++)); do boots_alone root$i $i $memory "root=xget:///$image"; done
for name in $(fleet root); do is_up "$name"; done
for name in $(fleet root); do note "$name: $(vm_lines "$name" | grep ': fetched ')"; done
judge_sent 0 "$boot/$image"

sent=$(status 0 | field sent_bytes)
for ((i = 1; i <= machines; i++)); do
    boots_alone kernel$i $((10 + i)) 512 "rd.xget.kernel=vmlinuz rd.xget.initramfs=initrd.img"
done
for name in $(fleet kernel); do check "$name starts the next kernel" vm_prints 240 "$name" '^NEXT kernel is up'; done
for name in $(fleet kernel); do note "$name: $(vm_lines "$name" | grep ': fetched ')"; done
judge_sent "$sent" "$boot/vmlinuz" "$boot/initrd.img"

# ---- how long xget takes by itself

# A machine whose network is up fetches a small file, of a tree that is not, again and again.
timed=$work/timed
busybox_tree "$timed"
cp "$static_node" "$timed/bin/xget"
mkdir "$timed/run"
add_modules "$timed" "$kernels/root" virtio_pci virtio_net
cat > "$timed/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
modprobe virtio_pci
modprobe virtio_net
ip link set lo up
ip link set eth0 up
ip address add $(ip_of 9)/24 dev eth0
until ping -c 1 -W 1 $(ip_of 0) > /dev/null; do :; done
for i in 1 2 3 4 5; do
    rm -rf /run/xget/files/*
    before=\$(cut -d ' ' -f 1 /proc/uptime)
    xget --boot xget://$(ip_of 0)/images/small > /dev/null
    echo "TIMED \$before \$(cut -d ' ' -f 1 /proc/uptime) \$(stat -c %s /run/xget/files/small)"
done
echo "TIMED all"
poweroff -f
INIT
chmod 755 "$timed/init"
pack "$timed" "$work/timed.img"
initrd=timed.img boots_alone timed 9 $memory "rd.xget.serve=no"
check "a machine fetches a small file" vm_prints 240 timed '^TIMED all'
times=$(vm_lines timed | awk '/^TIMED [0-9]/ && $4 == 1000 { printf " %.2f", $3 - $2 }')
check "five times" [ "$(wc -w <<< "$times")" = 5 ]
note "from its start until a file was whole xget took this many seconds:$times"

# ---- without a master

end TERM master
nobody=$(ip_of 240)
first=$(address_of 1)
boots_alone refused 5 $memory "root=xget:///$image rd.xget.server=$(ip_of 0),$first"
boots_alone silent 6 $memory "root=xget:///$image rd.xget.server=$nobody,$first"
is_up refused
check "refused: it says who is asked instead" \
    vm_printed refused "^xget: $(ip_of 0):$port: Connection refused; trying $first:$port"
is_up silent
check "silent: it says who is asked instead" vm_printed silent "^xget: $nobody:$port: .*; trying $first:$port"
for name in refused silent; do note "$name: $(vm_lines $name | grep ': fetched ')"; done
finish
