#!/bin/bash
# A network of IPv6 alone, and one of both: in a network namespace of its own a node, at the other end of its cable a router and
# DHCPv6 servers of three makers. Addresses from a server and from a router, what there is besides, the boot file's URL, a server
# that answers late or never, an address that somebody else has.
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 nsenter:util-linux unshare:util-linux dnsmasq:dnsmasq-base radvd:radvd

(cd "$repo" && cargo build --locked --example address) > "$work/build.log" 2>&1 ||
    { fail "examples/address is built" "$work/build.log"; finish; }
address=$target/debug/examples/address

# ---- a node with a link, and servers at the other end of it

on() { local host=$1; shift; ip -n "$(ns "$host")" "$@"; }

# machines: a fresh node and a fresh server with a cable between them; the node's eth1 is down
machines() {
    local name
    end TERM "${!pid[@]}"; pid=()
    net_down
    hosts_up="node server"
    for name in $hosts_up; do
        ip netns add "$(ns $name)" && ip -n "$(ns $name)" link set lo up || return 1
    done
    rm -rf "${work:?}/etc" "${work:?}/run"; mkdir "$work/etc" "$work/run"
    ip link add eth1 netns "$(ns node)" address 02:00:00:00:00:01 type veth peer name p1 netns "$(ns server)"
    on server addr add 2001:db8:77::1/64 dev p1 nodad
    on server addr add fe80::1/64 dev p1 nodad
    on server link set p1 up
}

# router FLAGS...: as radvd writes them. The network is 2001:db8:77::/64
router() {
    printf '%s\n' 'interface p1 {' 'AdvSendAdvert on;' 'MaxRtrAdvInterval 600;' "$@" '};' > "$work/radvd.conf"
    start radvd server radvd -n -m stderr -C "$work/radvd.conf" -p "$work/radvd.pid"
}
prefix='prefix 2001:db8:77::/64 { AdvOnLink on; AdvAutonomous on; };'
no_addresses='prefix 2001:db8:77::/64 { AdvOnLink on; AdvAutonomous off; };'

# dnsmasq6 OPTION...: what it tells, whether or not it is the router too
dnsmasq6() {
    start dnsmasq server dnsmasq --no-daemon --conf-file=/dev/null --pid-file= --port=0 --user=root \
        --no-resolv --no-hosts --leasefile-ro --log-dhcp --bind-interfaces --interface=p1 --except-interface=lo \
        --dhcp-option=option6:dns-server,[2001:db8:77::53] --dhcp-option=option6:domain-search,cluster.org,hp.c "$@"
}
url='option6:59,xget://[2001:db8:77::9]:7000/node.squashfs'
stateful=2001:db8:77::100,2001:db8:77::1ff,64,1h

# boot CMDLINE [WORD...]: starts the node, which has an /etc and a /run of its own, and no name
within='mount --bind "$1/etc" /etc && mount --bind "$1/run" /run && echo "(none)" > /proc/sys/kernel/hostname &&
    shift && exec "$@"'
boot() { start node node unshare -m -u sh -c "$within" sh "$work" "$address" "$@"; }

# has_address SECONDS TEXT: the node's program ends well
has_address() {
    exit_of node "$1"
    if [ $code = 0 ]; then pass "$2"; else fail "$2 (exit code $code)" "$(log node)"; fi
}

said() { grep -qxE -- "$*" "$work/node.out" || { cat "$work/node.out" "$(log node)"; false; }; }
told() { grep -q -- "$*" "$(log node)" || { cat "$(log node)"; false; }; }
lacks() { ! told "$@"; }
servers() { [ "$(sed -n 's/^server //p' "$work/node.out" | xargs)" = "$*" ]; }
resolv_conf() { diff "$work/etc/resolv.conf" <(printf '%s\n' "$@"); }

kernel_has() {
    local what=$1 pattern=$2; shift 2
    on node $what show "$@" > "$work/ip.out"
    grep -qE -- "$pattern" "$work/ip.out" || { cat "$work/ip.out"; false; }
}

# ---- an address from a server (M)

machines || { fail "network namespaces are made"; finish; }
dnsmasq6 --enable-ra --dhcp-range=$stateful --dhcp-option=$url
boot "ip=dhcp6"
has_address 30 "a node gets an address from a DHCPv6 server"
check "it is of its pool" said 'address 2001:db8:77::1[0-9a-f]{2}'
check "it knows how long it has it" said 'lease (3[56][0-9]{2})'
check "the boot file's URL names whom to boot from" servers "[2001:db8:77::9]:7000"
check "the kernel has it for that time, and nobody else has it" \
    kernel_has addr 'valid_lft 3[56][0-9]{2}sec' dev eth1 to 2001:db8:77::100/120
check "what else is on the link is for the router to say" kernel_has addr 'inet6 2001:db8:77::1[0-9a-f]{2}/128 scope global' dev eth1
check "which is the way to everywhere" kernel_has "-6 route" '^default via fe80::'
check "resolv.conf has the name server and the search list" \
    resolv_conf 'search cluster.org hp.c' 'nameserver 2001:db8:77::53'
check "the server can be reached" nsenter "--net=/run/netns/$(ns node)" bash -c ': < /dev/udp/2001:db8:77::1/9'
boot "ip=dhcp6" keep
has_address 20 "what the network has already is used"
check "whom to boot from is known from the first run" servers "[2001:db8:77::9]:7000"

machines && dnsmasq6 --enable-ra --dhcp-range=$stateful --dhcp-option=$url
boot "root=xget:///node.squashfs"
has_address 27 "without ip= too, if DHCPv6 names a server"
check "it is that one" servers "[2001:db8:77::9]:7000"

# ---- besides an address from the router (O)

machines && dnsmasq6 --enable-ra --dhcp-range=2001:db8:77::,ra-stateless --dhcp-option=option6:59,tftp://[2001:db8:77::9]/x
boot "ip=auto6"
has_address 30 "an address from the router, the rest from a server"
check "its own" said 'address 2001:db8:77:0:0:ff:fe00:1|address 2001:db8:77::ff:fe00:1'
check "another protocol's URL names the server as well" servers "[2001:db8:77::9]"
check "resolv.conf has both" resolv_conf 'search cluster.org hp.c' 'nameserver 2001:db8:77::53'

machines && router "$prefix" 'RDNSS 2001:db8:77::54 {};' 'DNSSL cluster.org hp.c {};'
boot "ip=auto6"
has_address 30 "a router that knows names itself"
check "resolv.conf has them" resolv_conf 'search cluster.org hp.c' 'nameserver 2001:db8:77::54'

machines && router "$prefix" 'AdvOtherConfigFlag on;'
boot "ip=auto6 rd.xget.server=head"
has_address 35 "where the router promises a server and none answers, its address does"
check "and it says so" told 'the router on eth1 says DHCPv6 (O flag) and no server answers'

# ---- late, never, odd

machines
boot "ip=dhcp6"
sleep 4
check "it says that there is no router" told 'waiting for a router advertisement on eth1$'
# The kernel would ask again 15 s later.
sleep 10
router "$no_addresses" 'AdvManagedFlag on;'
check "within 10 seconds it knows of one, and says that no server answers" \
    wait_for 14 told 'waiting for a DHCPv6 server on eth1, where the router says DHCPv6 (M flag; asked'
dnsmasq6 --dhcp-range=$stateful
has_address 27 "both may start late"

machines && router "$no_addresses" 'AdvManagedFlag on;'
dnsmasq6 --dhcp-range=2001:db8:77::100,2001:db8:77::100,64,1h --dhcp-host=02:00:00:00:00:99,[2001:db8:77::100]
boot "ip=dhcp6 rd.xget.timeout=12"
exit_of node 25
check "a server without addresses says why" told 'does not give an address: it has no address for this node (NoAddrsAvail)'
check "and it gives up with what is missing" told 'cannot get an address: .*no DHCPv6 server on eth1, where the router says'

machines && dnsmasq6 --enable-ra --dhcp-range=2001:db8:77::100,2001:db8:77::101,64,1h
on server addr add 2001:db8:77::100/128 dev p1 nodad
on server addr add 2001:db8:77::101/128 dev p1 nodad
boot "ip=dhcp6 rd.xget.timeout=14"
exit_of node 28
check "an address that somebody else has is given back" told 'another host on eth1 has the address 2001:db8:77::10[01]'
check "and is not used" kernel_has "-6 addr" 'inet6 fe80' dev eth1
check "the server has heard of it" grep -q DHCPDECLINE "$(log dnsmasq)"

# ---- with IPv4

machines && on server addr add 10.77.1.1/24 dev p1
dnsmasq6 --enable-ra --dhcp-range=$stateful --dhcp-range=10.77.1.10,10.77.1.19,1h
boot "ip=eth1:dhcp,dhcp6 rd.xget.server=head" keep
has_address 35 "with both families"
check "one of them is the node's" said 'address (10.77.1.1[0-9]|2001:db8:77::1..)'

# ---- other makers' servers

if has dhcpd:isc-dhcp-server; then
    machines && router "$no_addresses" 'AdvManagedFlag on;'
    cat > "$work/dhcpd.conf" << END
option dhcp6.bootfile-url code 59 = string;
default-lease-time 3600;
subnet6 2001:db8:77::/64 {
  range6 2001:db8:77::200 2001:db8:77::2ff;
  option dhcp6.name-servers 2001:db8:77::53;
  option dhcp6.domain-search "cluster.org", "hp.c";
  option dhcp6.bootfile-url "xget://head.cluster.org/node.squashfs";
}
END
    touch "$work/dhcpd.leases"
    start dhcpd server dhcpd -6 -d -cf "$work/dhcpd.conf" -lf "$work/dhcpd.leases" -pf "$work/dhcpd.pid" p1
    boot "ip=eth1:dhcp6" keep
    has_address 35 "ISC's server"
    check "its address" said 'address 2001:db8:77::2..'
    check "an address can be kept for ever" kernel_has addr 'valid_lft forever' dev eth1 to 2001:db8:77::200/120
    check "a boot server by name" servers "head.cluster.org"
    check "names" resolv_conf 'search cluster.org hp.c' 'nameserver 2001:db8:77::53'
else
    skip "ISC's server" "apt-get install isc-dhcp-server"
fi

if has kea-dhcp6:kea-dhcp6-server; then
    machines && router "$no_addresses" 'AdvManagedFlag on;'
    cat > "$work/kea.conf" << END
{ "Dhcp6": {
  "data-directory": "$work", "interfaces-config": { "interfaces": ["p1"] },
  "lease-database": { "type": "memfile", "persist": false },
  "preferred-lifetime": 3000, "valid-lifetime": 3600,
  "client-classes": [ { "name": "pxe", "test": "substring(vendor-class[343].data, 0, 9) == 'PXEClient'",
    "option-data": [ { "name": "bootfile-url", "data": "http://[2001:db8:77::9]:8080/boot.efi" } ] } ],
  "subnet6": [ { "subnet": "2001:db8:77::/64", "interface": "p1",
    "pools": [ { "pool": "2001:db8:77::300-2001:db8:77::3ff" } ],
    "option-data": [ { "name": "dns-servers", "data": "2001:db8:77::53" } ] } ] } }
END
    start kea server env "KEA_PIDFILE_DIR=$work" "KEA_LOCKFILE_DIR=$work" kea-dhcp6 -c "$work/kea.conf"
    boot "ip=dhcp6"
    has_address 35 "Kea"
    check "its address" said 'address 2001:db8:77::3..'
    check "it names a boot server to whoever says that it boots from the network" servers "[2001:db8:77::9]"
else
    skip "Kea" "apt-get install kea-dhcp6-server"
fi

finish
