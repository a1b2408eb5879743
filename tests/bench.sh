#!/bin/bash
# The benchmark, as small as can be: are there results, are copies checked, is nothing left behind?
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 tc:iproute2 nsenter:util-linux unshare:util-linux mount:mount python3:python3
need_xget
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    skip "the benchmark" "Python 3.11 or newer"
    finish
fi

export TMPDIR=$work/tmp
mkdir "$TMPDIR"
results=$work/results.jsonl
# Under a path of its own, so that its processes can be told from all others.
program=$work/xget
cp "$xget" "$program"

bench() { timeout -k 5 60 "$repo/bench/run" --results "$results" -n 2 --size 1M "$@"; }
lines() { [ "$(grep -c "$2" "$results")" = "$1" ]; }
nothing_left() {
    ! pgrep -f "^$program " && [ -z "$(ls "$TMPDIR")" ] && ! grep -qs " $TMPDIR" /proc/[0-9]*/mounts
}

check "its parts work" python3 "$repo/bench/test_bench.py"

tools=(xget)
if command -v nginx > /dev/null && command -v curl > /dev/null; then tools+=(nginx); else note "nginx or curl is not here"; fi
if ! XGET=$program bench "${tools[@]/#/--tool=}" > "$work/bench.log" 2>&1; then
    if grep -q qdisc "$work/bench.log"; then
        skip "a measurement" "a kernel with sch_htb (modprobe sch_htb)"
        finish
    fi
    fail "${tools[*]} are measured" "$work/bench.log"
fi
check "there is a result for each of: ${tools[*]}" lines ${#tools[@]} '"ratio": [1-9]'
check "both copies were checked" lines ${#tools[@]} '"checked": 2'
check "nothing is left behind" wait_for 5 nothing_left

check "there is a table" sh -c "'$repo/bench/run' table --results '$results' | grep -q '^| xget '"

# A tool that says it is done, and has changed one byte of the copy.
cat > "$work/liar" << END
#!/bin/bash
[[ " \$* " = *" -n "* ]] || exec "$program" "\$@"
"$program" "\$@" && printf X | dd "of=\${!#}/image" bs=1 seek=500000 conv=notrunc status=none
END
chmod +x "$work/liar"
rm "$results"
XGET=$work/liar bench --tool xget > "$work/liar.log" 2>&1
check "it fails for wrong copies" [ $? -ne 0 ]
check "wrong copies are an error, not a result" lines 1 '"error": ".*wrong copies'
check "a wrong copy has no ratio" lines 0 '"ratio"'

XGET=$program "$repo/bench/run" --results "$results" -n 2 --size 64M --rate 10M --tool xget \
    > "$work/cut.log" 2>&1 &
pid[bench]=$!
check "a long run begins" wait_for 20 pgrep -f "^$program -b "
kill -INT "${pid[bench]}"
exit_of bench 10
check "it ends when it is interrupted" [ "$code" = 130 ]
check "nothing is left behind" wait_for 5 nothing_left

finish
