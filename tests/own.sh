#!/bin/bash
# Fetching without the kernel's network: xget speaks TCP itself, over a link on which the kernel has no
# address. Each node is a network namespace at the end of a cable, with a master and a DHCP server at the
# other end; and one is a virtual machine that boots another kernel that way.
#
# OWN_MIB is the size of what is fetched, and OWN_ROUNDS makes it measure as well: so often in turns by the
# kernel's TCP and by xget's own.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need_root
need ip:iproute2 nsenter:util-linux unshare:util-linux dnsmasq:dnsmasq-base nft:nftables
need_xget

mib=${OWN_MIB:-64}
server=$(ip_of 0)

# ---- a switch, the master's host 0, and nodes whose kernels have no addresses

net_up 4 || { fail "network namespaces are made"; finish; }
for i in 1 2 3; do
    ip -n "$(ns $i)" addr flush dev eth0
    ip -n "$(ns $i)" link set eth0 up
    # Nothing of the kernel's answers either.
    nsenter "--net=/run/netns/$(ns $i)" sysctl -qw net.ipv6.conf.all.disable_ipv6=1
done
src=$work/src
mkdir "$src"
random_file "$src/image" ${mib}M
small_tree "$src/tree"
start dnsmasq 0 dnsmasq --no-daemon --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts \
    --leasefile-ro --no-ping --log-dhcp --bind-interfaces --interface=eth0 --except-interface=lo \
    --dhcp-range=10.77.0.100,10.77.0.120,1h --host-record=head.cluster,"$server" --domain=cluster
wait_for 5 grep -q 'DHCP, ' "$(log dnsmasq)"
master 0 "$src" || { fail "the master starts" "$(log master)"; finish; }

# own NAME HOST DEST [OPTION...]: fetches with the address 10.77.0.5N
own() {
    local name=$1 host=$2 dest=$3; shift 3
    node "$name" "$host" "$server" "$dest" --own-net "eth0,10.77.0.5$host/24" "$@"
}
no_address() { ! ip -n "$(ns "$1")" -4 addr show dev eth0 | grep inet; }
no_route() { ! ip -n "$(ns "$1")" route | grep .; }
# ends_well NAME SECONDS TEXT: it fetched all it was to
ends_well() {
    exit_of "$1" "$2"
    if [ $code = 0 ]; then pass "$3"; else fail "$3 (exit code $code)" "$(log "$1")"; fi
}

own one 1 "$work/one" --serve no
ends_well one 60 "a node fetches without an address of the kernel's"
check "everything is right" same "$src" "$work/one"
check "the kernel still has no address" no_address 1
check "and no route" no_route 1
note "$(summary one)"
knows_nobody() { ! status 0 | grep 10.77.0.51; }
check "the master knows that it has left" knows_nobody

# ---- how fast

# measured NAME HOST OPTION...: MB/s of a fetch, and the seconds of processor time it takes
measured() {
    local name=$1 host=$2; shift 2
    rm -rf "$work/tmpfs/$name"
    local TIMEFORMAT='%U %S' cpu
    cpu=$( { time nsenter "--net=/run/netns/$(ns "$host")" "$xget" -n "$server" -p $port -q --serve no "$@" \
        image "$work/tmpfs/$name" 2> "$work/$name.log"; } 2>&1)
    note "$name: $(summary "$name" | grep -oE 'in [0-9.]+ s \([^)]*\)'), $(awk '{ print $1 + $2 }' <<< "$cpu") s of processor time"
}
if [ -n "${OWN_ROUNDS:-}" ]; then
    mkdir "$work/tmpfs" && mount -t tmpfs tmpfs "$work/tmpfs"
    need ethtool:ethtool
    rounds() {
        local round
        note "$1:"
        for ((round = 0; round < OWN_ROUNDS; round++)); do
            measured kernel 4
            measured own 1 --own-net eth0,10.77.0.51/24
        done
    }
    rounds "frames of up to 64 KiB, without checksums"
    nsenter "--net=/run/netns/$(ns 0)" ethtool -K eth0 tso off gso off tx off > "$work/ethtool.log" 2>&1
    rounds "frames of 1500 bytes, with checksums"
    nsenter "--net=/run/netns/$(ns 0)" ethtool -K eth0 tso on gso on tx on > "$work/ethtool.log" 2>&1
    note "load: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    umount "$work/tmpfs"
fi

# ---- names

mkdir "$work/etc" && echo "nameserver $server" > "$work/etc/resolv.conf"
start named 1 unshare -m sh -c 'mount --bind "$1" /etc && shift && exec "$@"' sh "$work/etc" \
    "$xget" -n head.cluster -p $port -q --own-net eth0,10.77.0.51/24 --serve no tree "$work/named"
ends_well named 30 "the server may be given by its name"
check "what it fetched is right" same "$src/tree" "$work/named/tree"

# ---- trading

own two 1 "$work/two" --serve forever
wait_for 60 is_whole two
end KILL master
node three 4 10.77.0.51 "$work/three" --serve no
ends_well three 60 "a node with the kernel's network fetches from one without"
check "everything is right there" same "$src" "$work/three"
node four 2 10.77.0.51 "$work/four" --own-net eth0,10.77.0.52/24 --serve no
ends_well four 60 "so does one without"
check "everything is right there, too" same "$src" "$work/four"
end TERM two
master 0 "$src" || { fail "the master starts again" "$(log master)"; finish; }

# ---- loss

lose() {
    nsenter "--net=/run/netns/$(ns 0)" nft -f - << END
table inet loss {
    chain in { type filter hook input priority 0; iifname eth0 numgen random mod 100 < $1 drop; }
    chain out { type filter hook output priority 0; oifname eth0 numgen random mod 100 < $1 drop; }
}
END
}
if lose 2 2> "$work/nft.log"; then
    own lossy 3 "$work/lossy" --serve no
    ends_well lossy 120 "where packets get lost it takes longer"
    check "and everything is right" same "$src" "$work/lossy"
    note "$(summary lossy)"
    nsenter "--net=/run/netns/$(ns 0)" nft flush ruleset
else
    skip "packets get lost" "a kernel with nftables"
fi

# ---- nobody there

end KILL master
own refused 2 "$work/refused" --timeout 4 --retries forever
exit_of refused 15
check "where nobody serves it gives up when it is told to" [ $code = 3 ]
check "and says so" grep -q "cannot connect to $server: Connection refused" "$(log refused)"
node silent 2 10.77.0.99 "$work/silent" --own-net eth0,10.77.0.52/24 --timeout 8 --retries forever
exit_of silent 25
check "so it does where nobody is" [ $code = 3 ]
check "and says that, too" grep -q "cannot connect to 10.77.0.99: timed out" "$(log silent)"
master 0 "$src" --max-upload $((mib / 8))M || { fail "the master starts" "$(log master)"; finish; }
own cut 2 "$work/cut" --timeout 12 --retries forever
wait_for 10 grep -q generation "$(log cut)"
sleep 2
ip -n "$(ns sw)" link set p0 down
exit_of cut 40
check "a server that is gone in the middle is given up" [ $code = 3 ]
check "with words that say how far it came" grep -qE "cannot connect to $server: .*are kept for the next attempt" "$(log cut)"
ip -n "$(ns sw)" link set p0 up
node nolink 2 "$server" "$work/nolink" --own-net eth7,10.77.0.52/24
exit_of nolink 5
check "a link that is not there is told" [ "$code $(grep -c 'No such device' "$(log nolink)")" = "5 1" ]
end KILL master

# ---- a machine whose first kernel has no address, and fetches the second one

[ -c /dev/net/tun ] || { skip "a machine boots" "a kernel with /dev/net/tun"; finish; }
need_vm depmod:kmod
need_static
kernels=$target/test-kernel         # what was downloaded stays here
debian_kernel linux-image-cloud-amd64 "$kernels"
boot=$work/boot
mkdir "$boot"
cp "$kernels/root/boot/vmlinuz-$version" "$boot/vmlinuz"
second_initrd "$boot/initrd.img"
"$repo/initramfs/stage1/make-stage1" --xget "$static_node" -o "$work/stage1.img" \
    --modules "$version:$kernels/root" virtio_pci virtio_net > "$work/stage1.log" 2>&1 ||
    { fail "stage one is made" "$work/stage1.log"; finish; }
master 0 "$boot" || { fail "the master starts" "$(log master)"; finish; }
vm_on_switch first 1 -m 512 -no-reboot -kernel "$boot/vmlinuz" -initrd "$work/stage1.img" \
    -append "console=ttyS0 panic=-1 quiet rd.xget.net=own rd.xget.kernel=vmlinuz rd.xget.initramfs=initrd.img rd.xget.append=second"
if vm_prints 180 first '^SECOND cmdline .* second'; then
    pass "a machine boots another kernel with rd.xget.net=own"
else
    fail "a machine boots another kernel with rd.xget.net=own" "$(console first)" "$(log first)"
fi
note "$(vm_lines first | grep ': fetched ')"
check "its first kernel was told of no address" vm_printed first '^xget: eth0 has the address 10.77.0.1.*, used by xget only'
vm wrong - -m 256 -no-reboot -kernel "$boot/vmlinuz" -initrd "$work/stage1.img" \
    -append "console=ttyS0 panic=-1 quiet rd.xget.kernel=vmlinuz rd.xget.net=own vlan=eth0.5:eth0"
check "what the own network cannot do is told" vm_prints 90 wrong "${said}rd.xget.net=own does not support VLANs"
finish
