#!/bin/bash
# Real processes under attack: while 32 nodes fetch, every second some of them are killed and begin
# again, one is stopped for a while, and the master is killed and comes back; a file is cut short under
# it. All files are right in the end.
. "$(dirname "$0")/lib.sh"
need python3:python3
need_xget

nodes=32
rounds=15
src=$work/src
mkdir "$src"
small_tree "$src"
for i in 1 2 3 4; do random_file "$src/image-$i" 6M; done

start_master() { master - "$src" -m 2 --max-upload 2M "$@" || { fail "the master starts" "$(log master)"; finish; }; }

# begin N: node N fetches, or goes on
begin() {
    start "n$1" - "$xget" -n "127.0.0.1:$port" -p $((port + $1)) -q -D 1 -r forever --retry-wait 1 \
        --max-upload 2M --serve forever . "$work/n$1.d"
}

start_master
names=()
for i in $(seq $nodes); do begin "$i"; names+=("n$i"); done

killed=0 masters=0
RANDOM=7
for round in $(seq $rounds); do
    sleep 1
    for _ in 1 2; do
        victim=$((1 + RANDOM % nodes))
        end KILL "n$victim"
        begin $victim
        killed=$((killed + 1))
    done
    stopped=$((1 + RANDOM % nodes))
    kill -STOP "${pid[n$stopped]}"
    if [ $((round % 3)) -eq 0 ]; then
        end KILL master
        start_master
        masters=$((masters + 1))
    fi
    kill -CONT "${pid[n$stopped]}"
done
note "$killed nodes and $masters masters were killed, one node a second was stopped for a while"
whole=0
for name in "${names[@]}"; do ! is_whole "$name" || whole=$((whole + 1)); done
note "$whole of $nodes nodes were whole by then"
if all_whole 120 "${names[@]}"; then pass "all $nodes nodes get their files in the end"; else
    fail "all $nodes nodes get their files in the end" "$(log n1)" "$(log master)"; fi
wrong=0
for i in $(seq $nodes); do same "$src" "$work/n$i.d" > "$work/diff" || wrong=$((wrong + 1)); done
check "every copy is right: contents, modes, owners, times, links" [ $wrong -eq 0 ]
check "nothing temporary is left" [ -z "$(find "$work"/n*.d -name '.xget-part-*')" ]
check "none has panicked" sh -c "! grep -l panicked $work/*.log"
end TERM "${names[@]}"

# ---- a file is cut short while it is sent

end TERM master
random_file "$src/image-1" 24M
start_master --rescan 1
start cut - "$xget" -n "127.0.0.1:$port" -q -D 1 -r forever --retry-wait 1 --serve no . "$work/cut.d"
sleep 1
truncate -s 1M "$src/image-1"
exit_of cut 60
check "a file cut short under the master: the client ends well" [ $code -eq 0 ]
check "and has the tree as it is now, not a mixture" same "$src" "$work/cut.d"
finish
