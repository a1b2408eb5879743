#!/bin/bash
# The xget of 2009 against this one: tests/classic_client.py does on the wire what that program does.
. "$(dirname "$0")/lib.sh"
need python3:python3
need_xget

client=$repo/tests/classic_client.py
port=$((21000 + RANDOM % 8000))
home=127.0.0.1:$port
src=$work/src
mkdir -p "$src/dir/data" "$src/many" "$src/real"
head -c 3000000 /dev/urandom > "$src/kernel"
head -c 100001 /dev/urandom > "$src/dir/initrd"
: > "$src/dir/empty"
echo inside > "$src/dir/data/file"
echo "a real one" > "$src/real/data"
echo "another" > "$src/real/checksum"
echo "a real log" > "$src/log"
for i in $(seq 1500); do echo "file $i" > "$src/many/$i"; done
start master - "$xget" -p $port --listen 127.0.0.1 --cache none --rescan 1 "$src"
wait_for 20 grep -q generation "$(log master)" || { fail "the master starts" "$(log master)"; finish; }

# classic NAME OPTION...: a client in the background; what it says in $work/NAME.out, told by `tell`
classic() {
    local name=$1; shift
    mkfifo "$work/$name.in"
    python3 "$client" "$@" < "$work/$name.in" > "$work/$name.out" 2> "$work/$name.log" &
    pid[$name]=$!
    exec {fd}> "$work/$name.in"
    ends[$name]=$fd
}
declare -A ends=()
tell() { echo "$2" >&"${ends[$1]}"; }
hang_up() { kill "${pid[$1]}"; wait "${pid[$1]}" 2> /dev/null; true; }
said() { grep -q "$2" "$work/$1.out"; }
status() { "$xget" --status --raw -n $home; }
counts() { [ "$(status | grep -c '^classic=.* serves_files=[1-9]')" = "$1" ]; }

check "a client fetches a file, and its checksum is right" \
    python3 "$client" $home kernel "$work/one"
check "the file is the same" cmp "$src/kernel" "$work/one/kernel"
same_but_log() { diff -r --exclude=log "$1" "$2"; }
check "a client fetches a tree of directories and 1,500 files on one connection" \
    python3 "$client" $home . "$work/all"
check "the tree is the same, files named data and checksum with it" same_but_log "$src" "$work/all"
check "what clients write to log is in the master's log" grep -q 'reports: kernel: 3000000 bytes' "$(log master)"

a=$((port + 1)) b=$((port + 2))
classic a --serve $a $home kernel "$work/a"
check "a client becomes a secondary" wait_for 20 said a whole
check "it is counted" counts 1
check "the next client is sent to it" bash -c \
    "python3 $client $home kernel $work/b | tee $work/b.out | grep -q 'redirected kernel 127.0.0.1!$a'"
check "what it got there is right" cmp "$src/kernel" "$work/b/kernel"
check "it came from the secondary" said a '^served kernel'
check "who serves one file is named for no other" bash -c \
    "python3 $client $home dir/initrd $work/c | grep -q 'whole 1 redirected 0'"
tell a withdraw
wait_for 10 said a withdrawn
check "a secondary that clunks avail is counted no longer" wait_for 10 counts 0
check "and nobody is sent to it" bash -c \
    "python3 $client $home kernel $work/d | grep -q 'whole 1 redirected 0'"
classic b --serve $b $home kernel "$work/e"
wait_for 20 said b whole
check "the second secondary is counted" counts 1
hang_up b
check "a secondary that hangs up is counted no longer" wait_for 10 counts 0
check "and nobody is sent to it either" bash -c \
    "python3 $client $home kernel $work/f | grep -q 'whole 1 redirected 0'"
hang_up a

classic r --serve $a $home many "$work/r"
wait_for 30 said r whole
python3 "$client" $home many "$work/s" > "$work/s.out"
check "of 1,500 files that one secondary has a client fetches ten there, over as many connections" \
    said s 'whole 1500 redirected 10$'
check "and what it got is right" same_but_log "$src/many" "$work/s/many"
hang_up r

n=$((port + 3))
start node - "$xget" -p $n --listen 127.0.0.1 --serve forever -n $home . "$work/node"
wait_for 30 grep -q '^xget: fetched ' "$(log node)"
sent_to_node() {
    rm -rf "$work/g"
    python3 "$client" $home kernel "$work/g" > "$work/g.out"
    said g "redirected kernel 127.0.0.1!$n"
}
check "a client is sent to a new node that holds everything" wait_for 20 sent_to_node
check "what it got there is right as well" cmp "$src/kernel" "$work/g/kernel"
check "a client can name a new node as its master" python3 "$client" 127.0.0.1:$n . "$work/h"
check "and gets everything from it" same_but_log "$src" "$work/h"
classic c --serve $a $home kernel "$work/i"
wait_for 20 said c whole
start other - "$xget" -D 1 --serve no -n $home . "$work/other"
wait_for 30 grep -q '^xget: fetched ' "$(log other)"
check "a new node fetches beside classic secondaries" diff -r "$src" "$work/other"
check "and never from one" bash -c "! grep -q '^served' $work/c.out"
hang_up c
end TERM node

# changes_under NAME: a client waits in the middle of a file while that is replaced
classic m --pause $home kernel "$work/m"
wait_for 20 said m paused
head -c 3000000 /dev/urandom > "$src/kernel.new"
mv "$src/kernel.new" "$src/kernel"
wait_for 30 grep -q 'the tree has changed' "$(log master)"
tell m go
wait "${pid[m]}"
check "a file that changes while it is read ends in a dropped connection" [ $? = 255 ]
check "and never in an error" bash -c "grep -q DROPPED $work/m.out && ! grep -q ERROR $work/m.out"
check "the new state is fetched afterwards" python3 "$client" $home kernel "$work/n"
check "and it is the new one" cmp "$src/kernel" "$work/n/kernel"

# A client draws from another one, and what it draws is replaced at the master
classic p --serve $a $home kernel "$work/p"
wait_for 20 said p whole
classic q --pause $home kernel "$work/q"
wait_for 20 said q paused
check "a client draws from another one" said q "redirected kernel 127.0.0.1!$a"
before=$(grep -c 'the tree has changed' "$(log master)")
random_file "$src/kernel.new" 3000000
mv "$src/kernel.new" "$src/kernel"
tree_changed_again() { [ "$(grep -c 'the tree has changed' "$(log master)")" -gt "$before" ]; }
wait_for 30 tree_changed_again
tell q go
wait "${pid[q]}"
check "who draws an old state from another client is hung up on" [ $? = 255 ]
check "and never told that it has the file" bash -c "! grep -q '^whole' $work/q.out"
hang_up p
check "no checksum was ever wrong" bash -c "! grep -l 'WRONG' $work/*.out"
finish
