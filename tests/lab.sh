#!/bin/bash
# The laboratories: that of namespaces with three nodes, of which one is killed, and with a master that is
# stopped; one that is killed hard; and that of machines, with one of them. Nothing is left behind.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines tc:iproute2 flock:util-linux

lab=xtl$$
in_lab() { ip netns exec "$lab-$1" "${@:2}"; }
# whole_nodes N: is that the number of nodes that have all of it, beside the master?
whole_nodes() {
    [ "$(in_lab master "$xget" --status --json -n "$(ip_of 0)" | grep -oE '"held":\[([0-9]+),\1\]' | wc -l)" = $(($1 + 1)) ]
}
nothing_left() { ! ip netns list | grep "^$lab-" && ! grep "/run/$lab" /proc/mounts && ! ls -d "/run/$lab"*; }

# lab NAME PROGRAM OPTION...: starts one
lab() {
    local as=$1 program=$2; shift 2
    # A shell would keep a process in the background from hearing of Ctrl-C.
    XGET=$xget XGET_NODE=$static_node start "$as" - env --default-signal=INT "$repo/lab/$program" --name "$lab" "$@"
}

# Whatever happens to this test, its laboratories end, and tidy up.
end_labs() {
    local name
    for name in net next slow vm; do [ -z "${pid[$name]:-}" ] || end TERM "$name"; done
    lab last net -n 1 --size 1 --rate 0 --seconds 1
    exit_of last 60
}
trap 'end_labs; fail "$test_name was cut short"; finish' EXIT

# ---- namespaces

lab net net -n 3 --size 4 --rate 50
check "three nodes fetch all" wait_for 60 whole_nodes 3
check "its links have the rate that is asked for" grep -q 'rate 50Mbit' <(tc -n "$lab-n1" class show dev eth0)
check "a second one of that name is refused" \
    grep -q 'runs already' <("$repo/lab/net" --name "$lab" --seconds 1 2>&1)
kill -KILL "$(cat "/run/$lab/n1.pid")"
check "a node that is killed leaves the swarm" wait_for 30 whole_nodes 2
# The command that it shows for that.
again=$(sed -n 's/^ *start it again *//p' "$work/net.out" | head -n 1)
start again - bash -c "$again"
check "and comes back by the command that is shown" wait_for 30 whole_nodes 3
check "each copy is right" cmp "/run/$lab/n1/image" "/run/$lab/served/image"
end INT net
check "Ctrl-C ends all of it" nothing_left
note "$(tail -n 1 "$work/net.out")"

lab killed net -n 2 --size 1 --rate 0
wait_for 60 whole_nodes 2
end KILL killed
check "one that is killed hard leaves its nodes" test -e "/run/$lab/n1.pid"
lab next net -n 1 --size 1 --rate 0 --seconds 4
exit_of next 60
check "the next one, after its seconds, has tidied that up too" nothing_left
check "and ends well" [ "$code" = 0 ]

# A kernel without netem is named as what is missing.
lab slow net -n 1 --size 1 --delay 20 --seconds 4
slow_or_said() { tc -n "$lab-n1" qdisc show dev eth0 | grep 'netem.* delay 20ms' || grep sch_netem "$(log slow)"; }
check "packets are delayed, or it says what the kernel lacks" wait_for 30 slow_or_said
exit_of slow 60

# ---- machines

lab vm vm -n 1 --size 1
if wait_for 240 grep -aq '^ROOT is up' "/run/$lab/vm1.console"; then pass "a machine boots in the laboratory"; else
    fail "a machine boots in the laboratory" "$(log vm)" "/run/$lab/vm1.console"; fi
check "and serves what it was booted from" wait_for 30 whole_nodes 1
check "its console is shown" wait_for 30 grep -q '^vm1: ROOT has a resident' "$work/vm.out"
end TERM vm
check "its end leaves nothing behind" nothing_left
finish
