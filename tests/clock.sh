#!/bin/bash
# The clock is set by years, forth and back, while a master serves and nodes fetch from it. What xget
# waits for is measured by a clock that nobody sets: nothing comes of it.
. "$(dirname "$0")/lib.sh"
need faketime:faketime
need_xget
library=$(find /usr/lib /usr/lib64 -name libfaketime.so.1 2> /dev/null | head -n 1)

# Above the served directory, where a master may still read once it serves.
clock=$work/clock
export FAKETIME_TIMESTAMP_FILE=$clock FAKETIME_NO_CACHE=1 NO_FAKE_STAT=1
export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
set_clock() { echo "$1" > "$clock.new"; mv "$clock.new" "$clock"; }
set_clock +0d

src=$work/src
mkdir "$src"
small_tree "$src"
random_file "$src/image" 12M

real=$xget
xget=$work/xget
printf '#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n' "$library" "$real" > "$xget"
chmod +x "$xget"

master - "$src" --max-upload 3M --rescan 1 || { fail "the master starts" "$(log master)"; finish; }
node a - 127.0.0.1 "$work/a" --serve no
node b - 127.0.0.1 "$work/b" --serve 300 --state "$work/state"
jumps=0
while is_running a; do
    for to in +7300d -7300d +1d -1h; do set_clock $to; jumps=$((jumps + 1)); sleep 0.1; done
    [ $jumps -lt 2000 ] || break
done
note "the clock was set $jumps times"
exit_of a 60
check "a node gets its files while the clock is set" [ $code -eq 0 ]
check "and they are right" same "$src" "$work/a"
check "another as well" all_whole 60 b
check "nobody was taken for late" sh -c "! grep -E 'closed: (sent|read)' $(log master)"

set_clock +7300d
year=$(date -d "@$(LD_PRELOAD=$library date +%s)" +%Y)
check "the clock really was set: it is the year $year" [ "$year" -gt $(($(date +%Y) + 15)) ]
check "20 years pass, and who serves for 300 s does so still" sh -c "sleep 1; kill -0 ${pid[b]}"
node c - 127.0.0.1 "$work/c" --serve 3
check "a third node comes, in 20 years" all_whole 60 c
set_clock -7300d
exit_of c 60
check "who serves for 3 s ends then, though the clock was set back" [ $code -eq 0 ]
echo new > "$src/etc/file-1"
wait_for 30 grep -q 'the tree has changed' "$(log master)"
node d - 127.0.0.1 "$work/d" --serve no
exit_of d 60
check "a change of the tree is noticed and served" same "$src" "$work/d"
finish
