# shellcheck shell=bash
# A program writes to served files through a memory mapping, which changes none of their times: nodes and HTTP clients
# get what was hashed, or nothing, and soon the new contents. And a host that doubts everything costs little.

net_up 3 200 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
# In memory: where dirty pages are written back, the next write to one of them changes the times after all.
rm -rf "$work/src" && mkdir "$work/src" && mount -t tmpfs xget-test "$work/src" ||
    { fail "a file system in memory"; finish; }
mkdir "$work/src/etc"
for n in 1 2 3 4 5 6 7 8 9; do echo "$n" > "$work/src/etc/$n"; done
random_file "$work/src/image" 32M
echo after > "$work/src/later"
mkfifo "$work/orders"
mapped=$work/src/image

start mapper - python3 -u "$attacks/mapping.py" "$mapped" "$work/orders"
wait_for 10 grep -q ready "$work/mapper.out" || fail "a program maps a file" "$(log mapper)"
sleep 1                                     # until its times are old enough to be trusted

written=0
# rewrite OFFSET LENGTH: through the mapping
rewrite() {
    written=$((written + 1))
    echo "$1 $2" > "$work/orders"
    wait_for 10 has_written
}
has_written() { [ "$(grep -c written "$work/mapper.out")" -ge $written ]; }
times() { stat -c '%y %z' "$mapped"; }

# get FILE: by HTTP, in full or not at all
get() { nsenter "--net=/run/netns/$(ns 2)" curl -sSf --max-time 60 -o "$1" "http://$home:8080/image"; }
gets_new() { get "$work/got" && cmp "$work/got" "$mapped"; }
generation() { status 3 | grep -o 'generation=[0-9a-f]*' | head -n 1; }
serve() { master 0 "$work/src" --http 8080 "$@" || fail "the master starts" "$(log master)"; }
over() { end TERM master; unset 'pid[master]'; }
# has_right_copy TEXT: the node gets all there is, and it is what is served
has_right_copy() {
    if all_whole 60 honest; then
        check "$1" same "$work/src" "$work/copy"
        note "$(summary honest)"
        end TERM honest; unset 'pid[honest]'
    else
        fail "$1" "$(log honest)" "$(log master)"
    fi
}
says() { wait_for 30 grep -q "$1" "$(log master)"; }

serve
before=$(times)
cp "$mapped" "$work/old"
check "a file comes over HTTP as it is" gets_new
rewrite $((20 << 20)) $((1 << 20))
check "a write through a mapping changes no time" [ "$(times)" = "$before" ]
# ---- HTTP
nsenter "--net=/run/netns/$(ns 2)" curl -sS --max-time 60 -o "$work/got" -w '%{http_code}' \
    "http://$home:8080/image" > "$work/code" 2> "$work/curl"
code=$?
check "what is no longer what was hashed is cut off over HTTP (curl: $code)" [ $code -ne 0 ]
check "and nothing of it is delivered" cmp -n "$(stat -c %s "$work/got")" "$work/got" "$work/old"
check "soon the new contents are served, though no time has changed" wait_for 10 gets_new
check "it is said" says 'kept its times: a program writes'

cp "$mapped" "$work/old"
start slow 2 curl -sS --limit-rate 8M --max-time 60 -o "$work/slow" "http://$home:8080/image"
wait_for 10 [ -s "$work/slow" ]
rewrite $((24 << 20)) $((8 << 20))
exit_of slow 60
if [ $code -eq 0 ]; then
    check "a download beside a write is the old file as a whole" cmp "$work/slow" "$work/old"
else
    pass "a download beside a write is cut off (curl: $code)"
    check "and has nothing of the new file" cmp -n "$(stat -c %s "$work/slow")" "$work/slow" "$work/old"
fi
over

# ---- nodes
serve
rewrite $((1 << 20)) $((2 << 20))
node honest 2 "$home" "$work/copy"
has_right_copy "a node gets the new contents"
over

serve --max-upload 8M
rm -rf "$work/copy"
node honest 2 "$home" "$work/copy"
sleep 1
rewrite $((30 << 20)) $((2 << 20))
has_right_copy "so does one in the middle of its fetch"
over

# ---- SIGHUP and --rehash
serve --rescan 0
was=$(generation)
rewrite 100 1
kill -HUP "${pid[master]}"
check "SIGHUP finds what no time tells of" says 'rescan finished: the new generation is served'
check "and another generation is served" [ "$(generation)" != "$was" ]
kill -HUP "${pid[master]}"
check "then nothing has changed" says 'rescan finished: nothing has changed'
over

serve --rescan 0 --rehash 2
check "--rehash reads everything" says 'rehash finished: .*: nothing has changed'
was=$(generation)
rewrite 100 1
check "and finds what no time tells of" says 'rehash finished: .* had changed'
check "which is another generation then, too" [ "$(generation)" != "$was" ]
over
end TERM mapper; unset 'pid[mapper]'

# ---- whoever doubts everything

serve
start doubter 1 python3 -u "$attacks/doubter.py" "$home" "$port" 20 20
wait_for 30 grep -q ready "$work/doubter.out" || fail "somebody doubts everything" "$(log doubter)"
busy=$(cpu master)
sleep 5
busy=$(awk -v a="$busy" -v b="$(cpu master)" 'BEGIN { print (b - a) / 5 }')
reads=$(grep -c 'was read again and is right' "$(log master)")
rm -rf "$work/copy"
node honest 2 "$home" "$work/copy"
if all_whole 60 honest; then
    pass "a node is served beside a host that doubts every chunk"
    note "$(summary honest); the doubts cost $busy of a processor, for $reads chunks"
    end TERM honest; unset 'pid[honest]'
else
    fail "a node is served beside a host that doubts every chunk" "$(log honest)" "$(log master)"
fi
! is_running doubter || end TERM doubter
unset 'pid[doubter]'
over
umount "$work/src"
net_down
