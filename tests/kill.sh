#!/bin/bash
# What is there after an end in the middle: a killed client, a full disk, a node that lies. A final
# name never holds anything but the whole and right file.
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 tc:iproute2 nsenter:util-linux
need_xget

net_up 4 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
home=$(ip_of 0)

src=$work/src
mkdir "$src"
for i in 1 2 3 4 5 6 7 8; do random_file "$src/image-$i" 4M; done
small_tree "$src"
bytes=$(du -sb --apparent-size "$src" | cut -f 1)

start_master() { master 0 "$1" || { fail "the master starts" "$(log master)"; finish; }; }

# ---- a client is killed in the middle, and run again

if shape sw p1 50 2> "$work/tc.log"; then
    # watch_names DIR: says so whenever a final name is there and what it holds is not right
    watch_names() {
        local expected=$work/expected name looks=0
        declare -A seen=()
        (cd "$src" && find . -type f -exec sha256sum {} +) > "$expected"
        while [ ! -e "$work/watched-enough" ]; do
            while read -r name; do
                [ -z "${seen[$name]:-}" ] || continue
                seen[$name]=1 looks=$((looks + 1))
                (cd "$1" && sha256sum "$name") | grep -qxFf - "$expected" || echo "wrong: $name"
            done < <(cd "$1" 2> /dev/null && find . -type f ! -name '.xget-part-*')
            sleep 0.02
        done
        echo "looked: $looks"
    }
    watch_names "$work/copy" > "$work/watch" &
    pid[watch]=$!

    start_master "$src"
    rounds=0
    while :; do
        node client 1 "$home" "$work/copy"
        # Each time it is let to fetch some 6 MiB more, which is not a whole number of files.
        rounds=$((rounds + 1))
        [ $rounds -le 4 ] || break
        sleep 1.1
        is_running client || break
        end KILL client
        cp "$(log client)" "$work/round-$rounds.log"
    done
    check "the client was killed 4 times in the middle" [ $rounds -eq 5 ]
    if all_whole 60 client; then pass "then it finishes"; else
        fail "then it finishes" "$(log client)"; fi
    note "$(summary client)"
    sent=$(status 0 | field sent_bytes)
    here=$(summary client | sed -n 's/.*, \([0-9.]*\) MiB already here$/\1/p')
    check "it uses what was there" awk -v here="${here:-0}" 'BEGIN { exit !(here >= 8) }'
    check "hardly anything was fetched twice: the master sent $sent bytes of $bytes" \
        [ "$sent" -le $((bytes * 13 / 10)) ]
    exit_of client 30
    touch "$work/watched-enough"
    exit_of watch 30
    check "no final name ever held what is not right ($(grep looked "$work/watch") files)" \
        sh -c "! grep wrong '$work/watch' && grep -q 'looked: [1-9]' '$work/watch'"
    check "the copy is right in the end" same "$src" "$work/copy"
    check "nothing temporary is left" [ -z "$(find "$work/copy" -name '.xget-part-*')" ]

    # Once more, with all there: nothing but the manifest is fetched.
    node again 1 "$home" "$work/copy"
    exit_of again 60
    check "run again, it fetches nothing" [ "$(status 0 | field sent_bytes)" = "$sent" ]
    note "$(summary again)"
    end TERM master
else
    skip "a client killed in the middle" "a kernel with sch_htb (modprobe sch_htb)"
fi

# ---- the disk is full

small=$work/small
mkdir "$small"
mount -t tmpfs -o size=16m xget-test "$small"
start_master "$src"
node full 2 "$home" "$small/copy" --serve no
exit_of full 60
check "a full disk is exit code 5" [ "$code" = 5 ]
check "and is told in plain words" grep -q "No space left on device" "$(log full)"
note "$(grep 'No space' "$(log full)")"
wrong=$(cd "$small/copy" && find . -type f ! -name '.xget-part-*' -exec sha256sum {} + |
    grep -vxFf <(cd "$src" && find . -type f -exec sha256sum {} +))
check "no final name holds anything incomplete" [ -z "$wrong" ]
mount -o remount,size=128m "$small"
node full 2 "$home" "$small/copy" --serve no
exit_of full 60
check "with room it works" same "$src" "$small/copy"
note "$(summary full)"
check "and uses what was there" grep -q 'already here' "$(log full)"
check "nothing temporary is left" [ -z "$(find "$small/copy" -name '.xget-part-*')" ]
end TERM master

# ---- a node serves wrong bytes

# It has fetched all, and serves it; then its files are overwritten in place, behind its back.
start_master "$src"
node liar 3 "$home" "$work/liar" --serve forever
all_whole 60 liar || fail "the node that is to lie gets its files" "$(log liar)"
for i in 1 2 3 4 5 6 7 8; do
    dd if=/dev/zero of="$work/liar/image-$i" bs=1M count=4 conv=notrunc status=none
done
for i in 1 2 4; do node honest$i $i "$home" "$work/honest$i"; done
if all_whole 60 honest1 honest2 honest4; then pass "3 nodes finish beside one that lies"; else
    fail "3 nodes finish beside one that lies" "$(log honest1)" "$(log honest2)" "$(log honest4)"; fi
for i in 1 2 4; do exit_of honest$i 30; done
check "they got wrong bytes and say so" \
    grep -h "$(ip_of 3):$port sent chunk .* with a wrong hash" "$work"/honest?.log
note "$(grep -h 'with a wrong hash' "$work"/honest?.log | wc -l) times, as: $(grep -h 'with a wrong hash' "$work"/honest?.log | head -n 1)"
for i in 1 2 4; do check "copy $i is right all the same" same "$src" "$work/honest$i"; done
check "the liar's bytes are in no log as fetched" \
    sh -c "! grep -h '[1-9].* MiB from $(ip_of 3):' '$work'/honest?.log"

# With nobody but the liar to ask there is no copy, and no wrong one either.
end TERM master
node misled 1 "$(ip_of 3)" "$work/misled" --serve no -r 1
exit_of misled 40
if [ "$code" != 0 ] && [ "$code" != 124 ]; then pass "with the liar alone the fetch fails: exit code $code"; else
    fail "with the liar alone the fetch fails, and ends (exit code $code; 124 is no end within 40 s)" "$(log misled)"; fi
check "and leaves no wrong file" \
    sh -c "! find '$work/misled' -name 'image-*' | grep ."
note "$(tail -n 1 "$(log misled)")"

finish
