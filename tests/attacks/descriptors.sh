# shellcheck shell=bash
# Few descriptors, and a host that takes as many connections as it gets; a tree of many files.

net_up 2 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
rm -rf "$work/src" "$work/copy" "$work/few" && mkdir "$work/src"
for ((i = 0; i < 400; i++)); do random_file "$work/src/file-$i" 200K; done
start master 0 bash -c 'ulimit -n 200; exec "$@"' - "$xget" -p $port --cache none -D 1 "$work/src"
wait_for 60 grep -q 'serving .* on ' "$(log master)" || { fail "the master starts" "$(log master)"; finish; }
attack silent 190 60
node honest 2 "$home" "$work/copy"
if all_whole 60 honest && same "$work/src" "$work/copy"; then
    pass "with 200 descriptors and 190 silent connections a node gets 400 files"
else
    fail "with 200 descriptors and 190 silent connections a node gets 400 files" "$(log honest)" "$(log master)"
fi
start few 2 bash -c 'ulimit -n 100; exec "$@"' - "$xget" -n "$home:$port" -p 20005 -q -D 1 . "$work/few"
if all_whole 60 few && same "$work/src" "$work/few"; then pass "so does one with 100 descriptors"; else
    fail "so does one with 100 descriptors" "$(log few)"; fi
end TERM few; unset 'pid[few]'
check "the master never ran out of descriptors" sh -c "! grep 'Too many open files' '$(log master)'"
attack_over
end TERM master; unset 'pid[master]' 'pid[honest]'
net_down
