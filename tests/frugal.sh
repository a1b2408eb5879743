#!/bin/bash
# What the program costs besides the files: a node's memory while it fetches from several sources and
# serves many, the master's with a thousand nodes, and the processor time of both when all is done.
. "$(dirname "$0")/lib.sh"
need python3:python3
need_xget

node_kib=$((16 << 10))
master_kib=$((64 << 10))
crowd=1000
idle_seconds=5
most_wakeups=10                     # in that time

# A gigabyte, most of it holes: these are hashed and sent like all else, and need no room.
src=$work/src
mkdir "$src"
for i in 1 2; do random_file "$src/image-$i" 64M; done
truncate -s 896M "$src/image-3"

master - "$src" || { fail "the master starts" "$(log master)"; finish; }
chunks=$(status - "127.0.0.1:$port" | sed -n '1s/.* held=[0-9]*\/\([0-9]*\) .*/\1/p')

# is_below NAME KIB WHAT
is_below() {
    local kib
    kib=$(peak "$1")
    check "$3: $kib KiB of memory, at most $2" [ "${kib:-$(($2 + 1))}" -le "$2" ]
}

# fetch NAME NUMBER SERVER WHAT [OPTION...]: a node with a port of its own
fetch() {
    local name=$1 own=$((port + $2)) server=$3 what=$4; shift 4
    start "$name" - "$xget" -n "127.0.0.1:$server" -p $own -q -D 1 "$@" "$what" "$work/$name"
}

# ---- a node, between several sources and ten clients

sources=(source1 source2 source3)
for i in 1 2 3; do fetch source$i $i $port . --serve forever; done
all_whole 60 "${sources[@]}" || fail "the sources get their files" "$(log source1)"
fetch middle 4 $port . --serve forever
clients=()
for i in 1 2 3 4 5 6 7 8 9 10; do
    fetch client$i $((10 + i)) $((port + 4)) image-1 --serve no -r forever
    clients+=("client$i")
done
if all_whole 60 middle "${clients[@]}"; then pass "a node fetches 1 GiB while it serves 10 clients"; else
    fail "a node fetches 1 GiB while it serves 10 clients" "$(log middle)" "$(log client1)"; fi
note "$(summary middle)"
note "it has sent $(status - "127.0.0.1:$((port + 4))" | field sent_bytes) bytes"
is_below middle $node_kib "the node"
for client in "${clients[@]}"; do exit_of "$client" 30; done
end TERM "${sources[@]}"

# ---- the master, and a thousand nodes

if [ "$(ulimit -H -n)" != unlimited ] && [ "$(ulimit -H -n)" -lt $((crowd + 100)) ]; then
    skip "$crowd nodes at one master" "ulimit -H -n $((crowd + 100))"
else
    start crowd - python3 "$repo/tests/many_nodes.py" 127.0.0.1 $port $crowd "$chunks"
    check "$crowd nodes join, and wait for news" wait_for 60 grep -q "^$crowd nodes wait" "$work/crowd.out"
    is_below master $master_kib "the master with $crowd nodes"
fi

# ---- very many files

many=$work/many entries=200000
mkdir "$many"
(cd "$many" && seq -f d%03g 200 | xargs mkdir && for dir in d*; do (cd "$dir" && seq -w 1000 | xargs touch); done)
echo one > "$many/file"
manifest_kib=$(($("$xget" --manifest --cache none "$many" | wc -c) >> 10))
start many - "$xget" -p $((port + 50)) --cache none -D 1 "$many"
wait_for 60 grep -q 'serving .* on ' "$(log many)" || fail "a master of $entries files starts" "$(log many)"
fetch few 51 $((port + 50)) file --serve forever
all_whole 60 few || fail "a node fetches one of them" "$(log few)"
is_below few $((3 * manifest_kib + (6 << 10))) "a node with a manifest of $manifest_kib KiB"
end TERM few many; unset 'pid[few]' 'pid[many]'

# ---- nothing to do

sleep 3
before_node=$(wakeups middle) before_master=$(wakeups master)
sleep $idle_seconds
node_wakeups=$(($(wakeups middle) - before_node))
master_wakeups=$(($(wakeups master) - before_master))
check "a node at rest hardly wakes up: $node_wakeups times in $idle_seconds s" [ $node_wakeups -le $most_wakeups ]
check "nor does the master: $master_wakeups times" [ $master_wakeups -le $most_wakeups ]

finish
