#!/bin/bash
# Other people's 9P clients look at the master's tree, in every dialect they have: each lists it, reads
# and compares every file, asks for sizes and times, follows a link, is told what is not there, and is
# refused every change. The table that comes of it is in docs/interop.md.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/interop/lib.sh"
need python3:python3 diodls:diod diodcat:diod
need_xget

src=$work/src
mkdir "$src"
small_tree "$src"
ln -s ../file-1 "$src/etc/deep/to-file-1"
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

# looks NAME VERSION FROM DIALECT COMMAND...: a client that prints what interop/look.py describes
looks() {
    local name=$1 version=$2 from=$3 dialect=$4 before verdict what text code; shift 4
    before=$(lines)
    timeout 60 "$@" "$port" "$dialect" "$src" > "$work/looks" 2> "$work/looks.err"
    code=$?
    [ $code = 0 ] || fail "$name, $dialect: exit code $code" "$work/looks.err" "$(since "$before")"
    local -A said=()
    while IFS=$'\t' read -r verdict what text; do
        case $verdict in
        ok) said[$what]=${said[$what]:-yes}; pass "$name, $dialect: $text" ;;
        bad) said[$what]=NO; fail "$name, $dialect: $text" "$(since "$before")" ;;
        esac
    done < "$work/looks"
    row "$name" "$version" "$from" "$dialect" "${said[list]:--}" "${said[read]:--}" "${said[stat]:--}" \
        "${said[link]:--}" "${said[change]:--}" "${said[missing]:--}"
}

# ---- diod's tools, which look at one thing each

diod_lists() {
    local dir
    while read -r dir; do
        timeout 20 diodls -s $server -a / "$dir" > "$work/ls.out" || return 1
        awk '{ print $NF }' "$work/ls.out" | grep -vx '\.\.\?' | sort > "$work/ls.names"
        (cd "$src/$dir" && find . -mindepth 1 -maxdepth 1 -printf '%f\n') | awk '{ print $NF }' | sort |
            diff - "$work/ls.names" || return 1
    done < <(cd "$src" && find . -type d -printf '/%P\n')
}

# By `diodls -l`, which says of a file what ls does.
diod_stats() {
    timeout 20 diodls -l -s $server -a / /etc > "$work/ls.out" || return 1
    grep -E "^-rw-------[.]? .* $(stat -c %s "$src/etc/file-1") .* file-1$" "$work/ls.out"
}

diod_reads() {
    local file
    while read -r file; do
        timeout 20 diodcat -s $server -a / "$file" | cmp - "$src/$file" || return 1
    done < <(cd "$src" && find . -type f ! -path './many/*[1-9]' -printf '%P\n')
}

diod_is_told() {
    timeout 20 diodcat -s $server -a / no/such/file 2> "$work/cat.err"
    [ $? != 124 ] && grep 'No such file' "$work/cat.err"
}

# judge TEXT COMMAND...: check, and $is for the table
judge() {
    local before=$failed
    check "$@"
    is=yes
    [ $failed = "$before" ] || is=NO
}
judge "diodls lists every directory" diod_lists; list=$is
judge "diodls -l is told modes and sizes" diod_stats; stat=$is
judge "diodcat reads every file, the same as the master's" diod_reads; read=$is
judge "diodcat is told what is not there" diod_is_told; missing=$is
row diod "$(version_of diod)" Debian 9P2000.L $list $read $stat - - $missing

# ---- clients from PyPI

pypi=("p9fs:0.0.4:p9fs:9P2000,9P2000.u,9P2000.L" "python-9p:0.1.0:python9p:9P2000" "aio9p:0.3.3:aio9p:9P2000,9P2000.u")
in_full || pypi=("${pypi[0]}")
for client in "${pypi[@]}"; do
    IFS=: read -r name version program dialects <<< "$client"
    if ! python_client "$name" "$version"; then
        skip "$name" "python3-venv, and PyPI for $name==$version ($(tail -n 1 "$work/pip.log"))"
        continue
    fi
    for dialect in ${dialects//,/ }; do
        looks "$name" "$version" PyPI "$dialect" "$python" "$interop/${program}_client.py"
    done
done

in_full || { end TERM master; finish; }

# ---- clients from crates.io

if rust_peers; then
    looks ninep 0.6.0 crates.io 9P2000 "$peers/build/release/ninep-client"
else
    skip ninep "crates.io ($(tail -n 1 "$work/peers.log"))"
fi

# ---- and what else Debian has

if ixpc; then
    looks libixp 0.6 Debian 9P2000 env LD_LIBRARY_PATH="$libixp" python3 "$interop/tool_client.py" ixpc "$ixpc"
else
    skip libixp "libixp-dev of Debian 11 ($(tail -n 1 "$work/ixpc.log"))"
fi

if has go:golang-go /usr/share/gocode/src/gvisor.dev:golang-gvisor-gvisor-dev && gvisor_tool; then
    looks gVisor 20221219 Debian 9P2000.L \
        python3 "$interop/tool_client.py" gvisor "$gvisor_tool"
else
    skip gVisor "golang-go and golang-gvisor-gvisor-dev ($(tail -n 1 "$work/gvisor.log"))"
fi

check "the master's tree is unchanged" cmp "$work/before" <(describe "$src")
check "the master still answers" status - $server
end TERM master
finish
