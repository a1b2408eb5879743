#!/bin/bash
# How a node gets an address early in the boot: in a network namespace of its own, with dnsmasq at
# the other end of its cables. Cables that are plugged in late, servers that answer late or never,
# several links, static addresses, VLANs, IPv6, and a network that is there already.
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 nsenter:util-linux unshare:util-linux dnsmasq:dnsmasq-base busybox:busybox-static

(cd "$repo" && cargo build --locked --example address) > "$work/build.log" 2>&1 ||
    { fail "examples/address is built" "$work/build.log"; finish; }
address=$target/debug/examples/address

# ---- a node with links, and a server at the other end of them

mac_of() { echo "02:00:00:00:00:0$1"; }

# machines: a fresh node and a fresh server, without links between them
machines() {
    local name
    end TERM "${!pid[@]}"; pid=()
    net_down
    hosts_up="node server"
    for name in $hosts_up; do
        ip netns add "$(ns $name)" && ip -n "$(ns $name)" link set lo up || return 1
    done
    rm -rf "${work:?}/etc" "${work:?}/run"; mkdir "$work/etc" "$work/run"
}

# cable N: the node's ethN, which is down, and the server's pN with 10.77.N.1, which is up
cable() {
    ip link add "eth$1" netns "$(ns node)" address "$(mac_of "$1")" type veth \
        peer name "p$1" netns "$(ns server)"
    on server addr add "10.77.$1.1/24" dev "p$1"
    on server link set "p$1" up
}

# on HOST IP-ARGUMENT...
on() { local host=$1; shift; ip -n "$(ns "$host")" "$@"; }

# dhcp N [OPTION...]: a DHCP server for cable N: 10.77.N.N0 to .N9, for an hour
dhcp() {
    local n=$1; shift
    start "dhcp$n" server dnsmasq --no-daemon --conf-file=/dev/null --pid-file= --port=0 --user=root \
        --no-resolv --no-hosts --leasefile-ro --no-ping --log-dhcp --bind-interfaces \
        --interface="p$n" --except-interface=lo \
        --dhcp-range="10.77.$n.${n}0,10.77.$n.${n}9,1h" "$@"
    wait_for 5 grep -q 'DHCP, ' "$(log "dhcp$n")"
}

# boot CMDLINE [WORD...]: starts the node, which has an /etc and a /run of its own, and no name
within='mount --bind "$1/etc" /etc && mount --bind "$1/run" /run && echo "(none)" > /proc/sys/kernel/hostname &&
    shift && exec "$@"'
boot() {
    start node node unshare -m -u sh -c "$within" sh "$work" "$address" "$@"
}

# has_address SECONDS TEXT: the node's program ends well
has_address() {
    exit_of node "$1"
    if [ $code = 0 ]; then pass "$2"; else fail "$2 (exit code $code)" "$(log node)"; fi
}

said() { grep -qxF -- "$*" "$work/node.out" || { cat "$work/node.out" "$(log node)"; false; }; }
told() { grep -q -- "$*" "$(log node)" || { cat "$(log node)"; false; }; }

# kernel_has WHAT PATTERN [IP-ARGUMENT...]: as in "ip addr show dev eth0"
kernel_has() {
    local what=$1 pattern=$2; shift 2
    on node $what show "$@" > "$work/ip.out"
    grep -qE -- "$pattern" "$work/ip.out" || { cat "$work/ip.out"; false; }
}

lacks() { ! grep -q "$@"; }

# ---- DHCP

machines && cable 1 || { fail "network namespaces are made"; finish; }
dhcp 1 --dhcp-option=3,10.77.1.254 --dhcp-option=6,10.77.1.53,10.77.1.54 --dhcp-option=15,cluster \
    --dhcp-option=26,1400 --dhcp-option=66,10.77.1.66 --dhcp-boot=x,,10.77.1.65 \
    --dhcp-host="$(mac_of 1),10.77.1.15,node15"
boot "quiet ip=dhcp"
has_address 10 "a node gets an address by DHCP"
check "it knows its link and its address" said "address 10.77.1.15"
check "the next server is the first to boot from" \
    [ "$(sed -n 's/^server //p' "$work/node.out" | xargs)" = "10.77.1.65 10.77.1.66 10.77.1.1" ]
check "it knows how long the lease is" said "lease 3600"
check "the node has the name that DHCP has for it" said "host-name node15"
check "the kernel has the address, for the time of the lease" \
    kernel_has addr 'valid_lft 3[56][0-9]{2}sec' dev eth1 to 10.77.1.15/32
check "with its network" kernel_has addr 'inet 10.77.1.15/24 brd 10.77.1.255 ' dev eth1
check "the kernel has the default route" \
    kernel_has route '^default via 10.77.1.254 dev eth1 proto dhcp src 10.77.1.15'
check "the kernel has the MTU" kernel_has link 'mtu 1400 ' dev eth1
check "resolv.conf names the name servers" \
    diff "$work/etc/resolv.conf" <(printf '%s\n' 'search cluster' 'nameserver 10.77.1.53' 'nameserver 10.77.1.54')
check "the server can be reached" nsenter "--net=/run/netns/$(ns node)" bash -c ': < /dev/udp/10.77.1.1/9'

before=$(on node addr; on node route; on node -6 route)
echo "nameserver 192.0.2.9" > "$work/etc/resolv.conf"
boot "quiet ip=dhcp rd.xget.debug"
has_address 5 "what the network has already is used"
after=$(on node addr; on node route; on node -6 route)
check "whom to boot from is known from the first run" \
    [ "$(sed -n 's/^server //p' "$work/node.out" | xargs)" = "10.77.1.65 10.77.1.66 10.77.1.1" ]
check "and nothing is touched" diff <(sed 's/_lft [0-9]*sec//g' <<< "$before") <(sed 's/_lft [0-9]*sec//g' <<< "$after")
check "no link was brought up" lacks 'setting .* up' "$(log node)"
check "resolv.conf stays as it is, and is believed" said "name-server 192.0.2.9"

# ---- keep, and down

machines && cable 1 && dhcp 1
boot "" keep
has_address 10 "without a word on the command line it is DHCP as well"
check "an address can be kept for ever" kernel_has addr 'valid_lft forever' dev eth1 to 10.77.1.0/24
on node addr flush dev eth1
on node link set eth1 down
boot "" down
has_address 10 "again"
check "links can be taken down before a kexec" kernel_has link 'state DOWN' dev eth1

# ---- late links, late servers

machines && cable 1 && dhcp 1
on server link set p1 down
boot "ip=dhcp"
sleep 4
check "it says that it waits for carrier" told 'waiting for carrier on eth1$'
on server link set p1 up
has_address 10 "a cable may be plugged in late"

machines && cable 1
boot "ip=dhcp"
sleep 6
check "it says that it waits for an offer" told 'waiting for a DHCP offer on eth1 (asked'
dhcp 1
has_address 15 "a DHCP server may start late"
check "at most one line in 5 seconds" [ "$(grep -c waiting "$(log node)")" -le 4 ]

machines && cable 1 && cable 2 && dhcp 2
boot ""
has_address 10 "of two links the one that is answered on is taken"
check "it is the second" said "link eth2"

# The first offer waits a second for a better one, in which a busy machine may get nothing done: so up to three times.
for _ in 1 2 3; do
    machines && cable 1 && cable 2 && dhcp 1 && dhcp 2 --dhcp-boot=kernel
    boot "ip=dhcp"
    exit_of node 10
    ! said "link eth2" > /dev/null || break
done
check "both are answered on, and one names a file to boot: it is taken" said "link eth2"

machines && cable 1
cat > "$work/udhcpd.conf" << END
start 10.77.1.20
end 10.77.1.29
interface p1
lease_file $work/udhcpd.leases
pidfile $work/udhcpd.pid
option subnet 255.255.255.0
END
touch "$work/udhcpd.leases"
start udhcpd server busybox udhcpd -f "$work/udhcpd.conf"
boot "ip=dhcp"
has_address 10 "busybox's server, which names no boot server"
check "it is the boot server itself" said "server 10.77.1.1"

machines && cable 1 && dhcp 1 --dhcp-vendorclass=set:pxe,PXEClient --dhcp-boot=tag:pxe,x,,10.77.1.66
boot "ip=dhcp"
has_address 10 "a server that knows who boots from the network"
check "it says whom to boot from" said "server 10.77.1.66"

machines && cable 1 && dhcp 1 --dhcp-vendorclass=set:pxe,PXEClient --dhcp-ignore=tag:pxe
boot "ip=dhcp"
has_address 25 "a server that answers nobody that boots from the network"

# ---- which link

machines && cable 1 && cable 2 && dhcp 1 && dhcp 2
boot "BOOTIF=01-$(mac_of 2 | tr : -) ip=dhcp"
has_address 10 "BOOTIF= chooses"
check "it is the second" said "link eth2"
check "the first is left alone" kernel_has link 'state DOWN' dev eth1

machines && cable 1 && dhcp 1
boot "BOOTIF=$(mac_of 2)"
sleep 3
check "it says whom it waits for" told "waiting for a link with the hardware address $(mac_of 2)$"
cable 2 && dhcp 2
has_address 10 "the card may appear late"
check "it is that one" said "link eth2"

machines && cable 1
if on server link add link p1 name p1.5 type vlan id 5 2> /dev/null; then
    on server addr add 10.77.5.1/24 dev p1.5
    on server link set p1.5 up
    dhcp 5 --interface=p1.5
    boot "vlan=eth1.5:eth1 ip=eth1.5:dhcp"
    has_address 10 "a VLAN"
    check "it has the address" kernel_has addr 'inet 10.77.5.5' dev eth1.5
else
    note "this kernel has no VLANs"
    boot "vlan=eth1.5:eth1 ip=eth1.5:dhcp rd.xget.timeout=1"
    exit_of node 5
    check "without VLANs it says so" told 'no VLAN called eth1.5$'
fi

# ---- names, routes, and links that give nothing

machines && cable 1 && cable 2 && dhcp 1 && dhcp 2 --dhcp-option=66,head.cluster
boot "ifname=bootnet:$(mac_of 2) ip=bootnet:dhcp rd.route=10.9.0.0/16:10.77.2.7:bootnet"
has_address 10 "a link that the command line gives a name"
check "it is the one with that hardware address" said "link eth2"
check "it has the static route" kernel_has route '^10.9.0.0/16 via 10.77.2.7 dev eth2'
check "the server to boot from has a name" said "server head.cluster"

machines && cable 1 && cable 2
boot "ip=10.77.1.5::10.77.1.1:24::eth1:none ip=eth2:dhcp rd.xget.server=10.77.1.1"
has_address 20 "of two links one leads to the server, and nobody answers on the other"
check "that is told" told 'going on without what is still missing, as a server can be reached: a DHCP offer on eth2'

# ---- odd networks

machines && cable 1 && dhcp 1 --dhcp-option=1,255.255.255.255 --dhcp-option=3,10.77.1.1
boot "ip=dhcp"
has_address 10 "a network of one host"
check "its router is on the link all the same" \
    kernel_has route '^default via 10.77.1.1 dev eth1 .*onlink'

machines && cable 1 &&
    dhcp 1 --dhcp-option=3,10.77.1.254 --dhcp-option=121,10.0.0.0/8,10.77.1.3,0.0.0.0/0,10.77.1.4
boot "ip=dhcp"
has_address 10 "classless routes"
check "one of them" kernel_has route '^10.0.0.0/8 via 10.77.1.3 dev eth1'
check "they stand in for the router" kernel_has route '^default via 10.77.1.4 dev eth1'

# ---- static

machines && cable 1 && cable 2
boot "ip=10.77.2.7:10.77.2.1:10.77.2.254:255.255.255.0:n7:eth2:none:1450 nameserver=10.77.2.53"
has_address 10 "a static address"
check "the kernel has it for ever" kernel_has addr 'valid_lft forever' dev eth2 to 10.77.2.7/24
check "and the route" kernel_has route '^default via 10.77.2.254 dev eth2'
check "and the MTU" kernel_has link 'mtu 1450 ' dev eth2
check "it knows the server" said "server 10.77.2.1"
check "resolv.conf names the name server" grep -qx 'nameserver 10.77.2.53' "$work/etc/resolv.conf"
check "the other link is left alone" kernel_has link 'state DOWN' dev eth1

machines && cable 1
boot "ip=[2001:db8:77::7]::[2001:db8:77::1]:64::eth1:none"
has_address 10 "a static IPv6 address"
check "the kernel has it" kernel_has addr 'inet6 2001:db8:77::7/64 scope global' dev eth1
check "and the route" kernel_has "-6 route" '^default via 2001:db8:77::1 dev eth1'

# ---- IPv6

# router: advertises 2001:db8:77::/64 on cable 1
router() {
    on server addr add 2001:db8:77::1/64 dev p1 nodad
    start router server dnsmasq --no-daemon --conf-file=/dev/null --pid-file= --port=0 --user=root \
        --no-resolv --no-hosts --leasefile-ro --bind-interfaces --interface=p1 --except-interface=lo \
        --enable-ra --dhcp-range=2001:db8:77::,ra-only --dhcp-option=option6:dns-server,[2001:db8:77::53]
}

machines && cable 1 && router
boot "ip=auto6"
has_address 20 "an address from an IPv6 router"
check "it is of its network" grep -q '^address 2001:db8:77:' "$work/node.out"
check "the kernel has the route" kernel_has "-6 route" '^default via fe80::'
check "resolv.conf names the router's name server" \
    diff "$work/etc/resolv.conf" <(echo 'nameserver 2001:db8:77::53')

boot "rd.xget.net=kernel"
has_address 5 "an IPv6 address that is there"

machines && cable 1 && router
boot "rd.xget.server=head"
has_address 30 "where no DHCP server answers IPv6 will do"
check "it is of its network" grep -q '^address 2001:db8:77:' "$work/node.out"
boot "rd.xget.server=192.0.2.1 rd.xget.timeout=2"
exit_of node 20
check "unless no server is known that it could reach" told "no DHCP offer on eth1"

machines && cable 1 && router && dhcp 1
boot "rd.xget.server=head"
has_address 20 "where one answers it is IPv4"
check "it is" grep -q '^address 10.77.1.' "$work/node.out"

# ---- nobody

machines && cable 1 && cable 2
on server link set p2 down
boot "ip=dhcp rd.xget.timeout=7"
exit_of node 12
check "with a limit it gives up" [ $code = 5 ]
check "and says what was tried on which link" told \
    'cannot get an address: no carrier on eth2; no DHCP offer on eth1 (asked [23] times)$'

start user node setpriv --reuid=65534 --clear-groups --bounding-set=-all --inh-caps=-all "$address" "ip=dhcp"
exit_of user 5
check "without the right to it ends at once" grep -q 'cannot ' "$(log user)"

finish
