#!/bin/bash
# A master and eight nodes, each in a network namespace of its own, on one bridge: all at once, over
# fast links and over slow ones; and with nodes and the master dying in the middle of it.
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 tc:iproute2 nsenter:util-linux diff:diffutils
need_xget

nodes=(1 2 3 4 5 6 7 8)
mib=64
mbit=100

src=$work/src
mkdir "$src"
random_file "$src/image" ${mib}M
small_tree "$src"

image_bytes() { status 1 | field image_bytes; }
floor=$(awk -v mib=$mib -v mbit=$mbit 'BEGIN { printf "%.2f", mib * 1048576 * 8 / (mbit * 1e6) }')

# begin [OPTION...]: a master, and all nodes at once
begin() {
    rm -rf "$work"/n[0-9]*
    master 0 "$src" || { fail "the master starts" "$(log master)"; finish; }
    local i
    for i in "${nodes[@]}"; do node "n$i" "$i" "$(ip_of 0)" "$work/n$i" "$@"; done
}

# copies_are_right NAME...
copies_are_right() {
    local name
    for name; do
        same "$src" "$work/$name" > "$work/check.out" ||
            { fail "$name has the same as the master" "$work/check.out" "$(log "$name")"; return; }
    done
    pass "$# copies are the same as the master's: contents, modes, owners, times, links"
}

# ends_well NAME...: they leave by themselves, with exit code 0
ends_well() {
    local name bad=0
    for name; do
        exit_of "$name" 60
        [ $code = 0 ] || { bad=1; fail "$name ends with exit code $code" "$(log "$name")"; }
    done
    [ $bad = 1 ] || pass "$# nodes leave by themselves once nobody draws from them"
}

# master_sent_little: at most twice the image
master_sent_little() {
    local sent image
    sent=$(status 0 | field sent_bytes); image=$(status 0 | field image_bytes)
    note "the master sent $(awk -v a="$sent" -v b="$image" 'BEGIN { printf "%.2f", a / b }') times the image to ${#nodes[@]} nodes"
    check "the master sent at most twice the image" [ "$sent" -le $((2 * image)) ]
}

all=("${nodes[@]/#/n}")

# percent HOST: how much of the image that node has told the master of
percent() {
    status 0 | awk -F '[ =/]' -v "node=node=$(ip_of "$1"):$port" \
        'index($0, node " ") == 1 { found = 1; print int(100 * $4 / $5) } END { if (!found) print 0 }'
}
has_percent() { [ "$(percent "$1")" -ge "$2" ]; }

# ---- fast links

net_up 8 || { fail "a network of namespaces is made"; finish; }
begin
if all_whole 60 "${all[@]}"; then pass "8 nodes at once over fast links"; else
    fail "8 nodes at once over fast links" "$work"/n?.log; fi
note "the last was whole after $(slowest "${all[@]}") s"
master_sent_little
ends_well "${all[@]}"
copies_are_right "${all[@]}"
end TERM master

# ---- slow links

if ! net_up 8 $mbit 2> "$work/tc.log"; then
    skip "links of $mbit Mbit/s, and nodes and masters that die" "a kernel with sch_htb (modprobe sch_htb)"
    finish
fi
begin
if all_whole 60 "${all[@]}"; then pass "8 nodes at once over links of $mbit Mbit/s"; else
    fail "8 nodes at once over links of $mbit Mbit/s" "$work"/n?.log; fi
note "the last was whole after $(slowest "${all[@]}") s; no tool can be faster than $floor s:" \
    "$(awk -v t="$(slowest "${all[@]}")" -v f="$floor" 'BEGIN { printf "%.2f times that", t / f }')"
master_sent_little
check "far faster than one after the other" \
    awk -v t="$(slowest "${all[@]}")" -v f="$floor" 'BEGIN { exit !(t < f * 8 / 2) }'
ends_well "${all[@]}"
copies_are_right "${all[@]}"
end TERM master

# ---- two nodes die

begin
wait_for 60 has_percent 2 45
note "nodes 2 and 7 are killed when they have $(percent 2) % and $(percent 7) %"
end KILL n2 n7
rest=(n1 n3 n4 n5 n6 n8)
check "they were killed half-way" [ ! -e "$work/n2/image" -a ! -e "$work/n7/image" ]
if all_whole 60 "${rest[@]}"; then pass "the other 6 finish"; else
    fail "the other 6 finish" "${rest[@]/#/$work/}"; fi
note "the last was whole after $(slowest "${rest[@]}") s"
ends_well "${rest[@]}"
copies_are_right "${rest[@]}"

# The two come back: what they had is used.
for i in 2 7; do node "n$i" $i "$(ip_of 0)" "$work/n$i"; done
if all_whole 60 n2 n7; then pass "the two start again and finish"; else
    fail "the two start again and finish" "$(log n2)" "$(log n7)"; fi
check "they use what they had" grep -q 'already here' "$(log n2)"
note "node 2: $(summary n2)"
ends_well n2 n7
copies_are_right n2 n7
end TERM master

# ---- the master dies for good, once every chunk is out

begin --serve forever
wait_for 60 nothing_only_here 0
end KILL master
missing=0
for name in "${all[@]}"; do is_whole "$name" || missing=$((missing + 1)); done
note "the master was killed when every chunk was out; $missing of 8 nodes were not whole"
check "somebody still lacked something" [ $missing -gt 0 ]
if all_whole 60 "${all[@]}"; then pass "all 8 finish from each other"; else
    fail "all 8 finish from each other" "$work"/n?.log; fi
note "the last was whole after $(slowest "${all[@]}") s"
copies_are_right "${all[@]}"

# A node that comes now asks another node; it has to bring its own place in the network.
end KILL n8
rm -rf "$work/late"
node late 8 "$(ip_of 3)" "$work/late"
if all_whole 60 late; then pass "a late node fetches all from nodes, without a master"; else
    fail "a late node fetches all from nodes, without a master" "$(log late)"; fi
note "late: $(summary late)"
ends_well late
copies_are_right late
end TERM n1 n2 n3 n4 n5 n6 n7

# ---- the master is restarted in the middle

begin
wait_for 60 has_percent 2 30
end KILL master
check "the master was killed in the middle" [ ! -e "$work/n2/image" ]
sleep 1
master 0 "$src" || fail "the master starts again" "$(log master)"
if all_whole 60 "${all[@]}"; then pass "the nodes go on with a restarted master"; else
    fail "the nodes go on with a restarted master" "$work"/n?.log; fi
note "the last was whole after $(slowest "${all[@]}") s"
ends_well "${all[@]}"
copies_are_right "${all[@]}"
end TERM master

finish
