#!/bin/bash
# Other people's 9P clients read the master's tree: diod's tools (9P2000.L) and p9fs (9P2000,
# 9P2000.u, 9P2000.L). Every file is read and compared, what is not there is an error, and so is
# every write.
. "$(dirname "$0")/lib.sh"
need python3:python3 diodls:diod diodcat:diod
need_xget

src=$work/src
mkdir "$src"
small_tree "$src"
random_file "$src/big" 5M
mkdir "$src/many"
for i in $(seq 300); do echo "$i" > "$src/many/a-rather-long-name-of-a-file-$i"; done
describe "$src" > "$work/before"

start master - "$xget" -p 0 --listen 127.0.0.1 --cache none -D 2 "$src"
wait_for 60 grep -q 'serving .* on ' "$(log master)" || { fail "the master starts" "$(log master)"; finish; }
port=$(sed -n 's/^xget: serving .* on [^ ]*:\([0-9]*\): .*/\1/p' "$(log master)")
server=127.0.0.1:$port

# since LINES: the messages that the master has seen after its log had so many lines
lines() { wc -l < "$(log master)"; }
since() { tail -n "+$(($1 + 1))" "$(log master)" | grep -v ' <- Rread\| Tread ' > "$work/trace"; echo "$work/trace"; }

# ---- diod's tools

matrix=()
row() { matrix+=("$(printf '%-8s %-9s %5s %6s %10s %8s' "$@")"); }
row client dialect list read 'not there' write

before=$(lines)
ok=yes
# diodls lists one directory; what it prints is checked against ls.
while read -r dir; do
    timeout 20 diodls -s $server -a / "$dir" > "$work/ls.out" 2> "$work/ls.err" ||
        { ok=no; fail "diodls lists $dir" "$work/ls.err" "$(since "$before")"; break; }
    awk '{ print $NF }' "$work/ls.out" | grep -vx '\.\.\?' | sort > "$work/ls.names"
    (cd "$src/$dir" && find . -mindepth 1 -maxdepth 1 -printf '%f\n') | awk '{ print $NF }' | sort > "$work/ls.expected"
    diff "$work/ls.expected" "$work/ls.names" > "$work/ls.diff" ||
        { ok=no; fail "diodls lists $dir" "$work/ls.diff" "$work/ls.out"; break; }
done < <(cd "$src" && find . -type d -printf '/%P\n')
[ $ok = yes ] && pass "diodls lists every directory"
list=$ok

ok=yes count=0
before=$(lines)
while read -r file; do
    count=$((count + 1))
    timeout 20 diodcat -s $server -a / "$file" 2> "$work/cat.err" | cmp - "$src/$file" 2> "$work/cmp.err" ||
        { ok=no; fail "diodcat reads $file" "$work/cat.err" "$work/cmp.err" "$(since "$before")"; break; }
done < <(cd "$src" && find . -type f ! -path './many/*[1-9]' -printf '%P\n')
[ $ok = yes ] && pass "diodcat reads $count files, all the same as the master's"
read_ok=$ok

before=$(lines)
timeout 20 diodcat -s $server -a / no/such/file > /dev/null 2> "$work/cat.err"; code=$?
if [ $code != 0 ] && [ $code != 124 ] && grep -q 'No such file' "$work/cat.err"; then
    pass "diodcat is told what is not there"; gone=refused
else
    fail "diodcat is told what is not there (exit code $code)" "$work/cat.err" "$(since "$before")"; gone=NO
fi
row diod 9P2000.L $list $read_ok $gone -

# ---- p9fs

venv=$target/test-venv
if ! "$venv/bin/python" -c 'import p9fs' 2> /dev/null; then
    python3 -c 'import ensurepip' 2> /dev/null || apt_install python3-venv
    { rm -rf "$venv" && python3 -m venv "$venv" && "$venv/bin/pip" install -q p9fs==0.0.4; } > "$work/pip.log" 2>&1
fi
if "$venv/bin/python" -c 'import p9fs' 2> /dev/null; then
    for dialect in 9P2000 9P2000.u 9P2000.L; do
        before=$(lines)
        timeout 60 "$venv/bin/python" "$repo/tests/p9fs_client.py" "${server##*:}" $dialect "$src" > "$work/p9fs.out" 2> "$work/p9fs.err"
        code=$?
        declare -A said=()
        while IFS=$'\t' read -r verdict what text; do
            case $verdict in
            ok) said[$what]=${text%%:*}; pass "p9fs, $dialect: ${text#*: }" ;;
            bad) said[$what]=NO; fail "p9fs, $dialect: $text" "$(since "$before")" ;;
            esac
        done < "$work/p9fs.out"
        [ $code = 0 ] || fail "p9fs, $dialect: exit code $code" "$work/p9fs.err" "$(since "$before")"
        row p9fs $dialect "${said[list]:-?}" "${said[read]:-?}" "${said[gone]:-?}" "${said[write]:-?}"
        unset said
    done
else
    skip "p9fs" "python3 -m venv $venv && $venv/bin/pip install p9fs (needs python3-venv and PyPI)"
    row p9fs all skipped
fi

check "the master's tree is unchanged" cmp "$work/before" <(describe "$src")
check "the master still answers" status - $server
end TERM master
for line in "${matrix[@]}"; do note "$line"; done
finish
