#!/bin/bash
# A cluster is powered on at once, and a master is killed: thousands of connections within a second,
# ten thousand that only are there, and how soon a master that has hashed its tree before serves again.
. "$(dirname "$0")/lib.sh"
need python3:python3
need_xget

storm=2000
crowd=10000
crowd_kib=$((256 << 10))
idle_seconds=5
most_wakeups=10                     # in that time

src=$work/src
mkdir "$src" "$work/cache"
small_tree "$src"
random_file "$src/image" 64M

if [ "$(ulimit -H -n)" != unlimited ] && [ "$(ulimit -H -n)" -lt $((crowd + storm + 100)) ]; then
    skip "$crowd connections" "ulimit -H -n $((crowd + storm + 100))"
    finish
fi

# value NAME FIELD: from /proc/PID/status, in KiB
value() { sed -n "s/^$2:\s*\([0-9]*\) kB/\1/p" "/proc/${pid[$1]}/status"; }

# fetches WHAT: a copy of everything, made now
fetches() {
    rm -rf "$work/copy"
    "$xget" -n "127.0.0.1:$port" -q --serve no . "$work/copy" && same "$src" "$work/copy"
}

# A cache, so that the second master has hashed its tree before.
start_master() { master - "$src" --cache "$work/cache" || { fail "the master starts" "$(log master)"; finish; }; }
start_master

# ---- a storm

start storm - python3 "$repo/tests/storm_client.py" 127.0.0.1 $port $storm 1
check "$storm connections within a second are all answered" wait_for 60 grep -q "^$storm wait" "$work/storm.out"
note "$(head -n 1 "$work/storm.out")"
note "the master has taken $(value master VmHWM) KiB of memory"
check "meanwhile a client gets its files" fetches

# ---- a crowd

start crowd - python3 "$repo/tests/storm_client.py" 127.0.0.1 $port $crowd 20
check "$crowd connections more are there" wait_for 120 grep -q "^$crowd wait" "$work/crowd.out"
kib=$(value master VmHWM)
check "the master with $((crowd + storm)) connections: $kib KiB of memory, at most $crowd_kib" \
    [ "${kib:-$crowd_kib$crowd_kib}" -le $crowd_kib ]
sleep 3
before=$(wakeups master)
sleep $idle_seconds
woken=$(($(wakeups master) - before))
check "they hardly wake it up: $woken times in $idle_seconds s" [ $woken -le $most_wakeups ]
check "and a client gets its files among them" fetches

# ---- another master

end KILL master crowd storm
before=$(now)
start_master
note "a master that was killed served again $(awk -v a="$before" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }') s after its start"
read_bytes=$(sed -n 's/^rchar: //p' "/proc/${pid[master]}/io")
check "it has hashed nothing again: $read_bytes bytes were read" [ "$read_bytes" -lt 8000000 ]
check "it serves what it served" fetches
finish
