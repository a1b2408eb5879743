#!/bin/bash
# `xget -n` fetches from 9P servers of other people: plainly, unverified, and saying so. What comes is the
# same as what they serve, in every respect, and nothing half-written is left where a fetch fails. The
# table that comes of it is in docs/interop.md.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/interop/lib.sh"
need python3:python3 diod:diod
need_xget

src=$work/src
mkdir "$src"
small_tree "$src"
random_file "$src/big" 20M
truncate -s 10M "$src/holes"
mkdir "$src/many" && for i in $(seq 300); do echo "$i" > "$src/many/a-rather-long-name-of-a-file-$i"; done
deep=$src/$(printf 'd/%.0s' $(seq 20))
mkdir -p "$deep" && echo leaf > "$deep/leaf"
[ "$(id -u)" != 0 ] || chown 12:34 "$src/etc/file-7"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# A call that says nothing would count for the server.
answers() { "${inside[@]}" grep -qE " [0-9A-F]+:$(printf %04X "$1") 0+:0000 0A" /proc/net/tcp /proc/net/tcp6; }
inside=()                                   # what runs a program in the network that the server is in

# fetches DEST SRC... [OPTION...]: all of it goes into $work/fetch.log
fetches() {
    local dest=$1; shift
    timeout 60 "${inside[@]}" "$xget" -n "127.0.0.1:$port" -r 1 "${anames[@]}" "$@" "$dest" 2> "$work/fetch.log"
}

refused() {
    local dest=$1 code=$2 words=$3; shift 3
    fetches "$dest" "$@"
    [ $? = "$code" ] && grep "$words" "$work/fetch.log"
}

unfinished() { find "$1" -name '.xget-part-*' 2> /dev/null | grep .; }

# judge TEXT COMMAND...: check, and $is for the table
judge() {
    local text=$1 before=$failed; shift
    check "$server: $text" "$@"
    is=yes
    [ $failed = "$before" ] || is=NO
}

# fetched_from NAME VERSION FROM ANAME: with the server running on $port
fetched_from() {
    local server=$1 version=$2 from=$3 aname=$4 all one missing is
    anames=()
    [ -z "$aname" ] || anames=("--aname=$aname")
    wait_for 10 answers "$port" || { fail "$server starts" "$(log "$server")"; return; }
    judge "everything is fetched" fetches "$work/$server" .
    judge "it is the same in every respect" same "$src" "$work/$server"; all=$is
    [ "$all" = yes ] || tail -n 3 "$work/fetch.log"
    note "$(tail -n 1 "$work/fetch.log")"
    judge "it is said that nothing is verified" grep 'fetched without verification' "$work/fetch.log"
    judge "some of it is fetched" fetches "$work/$server-some" etc/deep many/a-rather-long-name-of-a-file-7
    judge "and is that" same "$src/etc/deep" "$work/$server-some/deep"; one=$is
    judge "what is not there is refused" refused "$work/$server-none" 4 'does not serve no/such' no/such; missing=$is
    judge "nothing is left half-written" eval "! unfinished '$work/$server' && ! unfinished '$work/$server-none'"
    row "$server" "$version" "$from" "$all" "$one" "$missing"
    end TERM "$server"
}

port=$(free_port)
diod=$(command -v diod || echo /usr/sbin/diod)
start diod - "$diod" -f -n -S -U root -e "$src" -l "127.0.0.1:$port" -L "$work/diod.own.log"
wait_for 10 answers "$port"
anames=()
check "diod: a server that wants an aname is told apart" refused "$work/no" 6 'aname=DIR' .
fetched_from diod "$(version_of diod)" Debian "$src"

if rust_peers; then
    port=$(free_port)
    start p9 - "$peers/build/release/p9-server" "127.0.0.1:$port" "$src"
    fetched_from p9 0.3.2 crates.io ""
else
    skip "the crate p9" "crates.io ($(tail -n 1 "$work/peers.log"))"
fi

if rust_program unpfs 0.13.0; then
    port=$(free_port)
    start unpfs - "$peers/bin/unpfs" "tcp!127.0.0.1!$port" "$src"
    fetched_from unpfs 0.13.0 crates.io ""
else
    skip unpfs "crates.io ($(tail -n 1 "$work/install.log"))"
fi

# nfs-ganesha listens on every address: it gets a network of its own.
if has ganesha.nfsd:nfs-ganesha /usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so:nfs-ganesha-vfs ip:iproute2 &&
    [ "$(id -u)" = 0 ] && net_up 0; then
    inside=(nsenter "--net=/run/netns/$(ns 0)")
    cat > "$work/ganesha.conf" <<END
NFS_CORE_PARAM { Protocols = 9P; Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = true; }
_9P { _9P_TCP_Port = $port; }
EXPORT {
    Export_Id = 1; Path = $src; Pseudo = /src; Tag = src; Protocols = 9P;
    Access_Type = RO; Squash = No_Root_Squash; FSAL { Name = VFS; }
}
END
    start nfs-ganesha 0 ganesha.nfsd -F -f "$work/ganesha.conf" -L "$work/ganesha.own.log" -p "$work/ganesha.pid"
    fetched_from nfs-ganesha "$(version_of nfs-ganesha)" Debian src
    inside=()
else
    skip nfs-ganesha "nfs-ganesha and nfs-ganesha-vfs, as root ($(tail -n 1 "$work/apt.log"))"
fi

# ---- a server that goes away in the middle and comes back

port=$(free_port)
start diod - "$diod" -f -n -S -U root -e "$src" -l "127.0.0.1:$port" -L "$work/diod.own.log"
wait_for 10 answers "$port"
anames=("--aname=$src")
check "a hash that is asked for refuses what has no manifest" \
    refused "$work/pinned" 8 'its files cannot be verified' "--hash=$(printf '5%.0s' $(seq 64))" .
check "and so does a key" \
    refused "$work/signed" 8 'its files cannot be verified' --key RWREtj0BI47rNz1eO6cA29KwkopMvwwALS4j0xELTu9jyDY9u7R1wrvm .
check "and nothing of it is there" eval "! ls -A '$work/pinned' '$work/signed' | grep -v :"

# cut_off BYTES TIMES: the first TIMES connections to \$port are cut after so many bytes from the server
cut_off() {
    local before=$port
    port=$(free_port)
    start cut - python3 "$interop/cut.py" "$port" "$before" "$1" "$2"
    wait_for 10 answers "$port"
}

end TERM diod

# diod itself may end when a connection does.
if rust_peers; then
    port=$(free_port)
    start p9 - "$peers/build/release/p9-server" "127.0.0.1:$port" "$src"
    wait_for 10 answers "$port"
    anames=()
    server_port=$port
    # The first connection only shows that it is not xget's.
    cut_off 9000000 3
    check "a fetch whose connection is cut twice goes on" fetches "$work/cut" .
    check "and says so" eval "[ \$(grep -c 'continuing with the missing files' '$work/fetch.log') = 2 ]"
    check "what comes of it is the same in every respect" same "$src" "$work/cut"
    # 30 MiB of files, at most 2 MiB on their way at each cut, and the list of what is there.
    came=$(awk '{ sum += $1 } END { print sum }' "$work/cut.out")
    note "$came bytes came"
    check "what was here is not read again" [ "$came" -lt 37000000 ]
    end TERM cut
    port=$server_port
    cut_off 300 1000
    check "a server that is always cut off is given up" refused "$work/given-up" 3 'the connection was closed' .
    end TERM cut p9
else
    skip "a server that goes away in the middle" "crates.io ($(tail -n 1 "$work/peers.log"))"
fi

# ---- a server that is not what it seems

port=$(free_port)
start liar - python3 "$interop/liar.py" "$port"
anames=()
wait_for 10 answers "$port"
check "a name that leads out of the destination is refused" refused "$work/out" 6 'an entry with an invalid name' names
check "a file that ends early is refused" refused "$work/short" 6 'was truncated' short
check "and is not there" eval "! ls '$work/short/short'"
check "a file that changes is refused" refused "$work/changes" 6 'has changed while it was read' changes
check "and is not there either" eval "! ls '$work/changes/changes'"
check "a directory without an end is refused" refused "$work/endless" 3 'timed out' --timeout 2 endless
end TERM liar

# ---- several servers, of which one is none

web=$(free_port) port=$(free_port) nobody=$(free_port)
start web - python3 -c "
import socket
listener = socket.create_server(('127.0.0.1', $web))
while True:
    client, _ = listener.accept()
    client.recv(4096)
    client.sendall(b'HTTP/1.0 400 Bad Request\\r\\n\\r\\n')
    client.close()
"
start master - "$xget" -p "$port" --listen 127.0.0.1 --cache none "$src"
wait_for 30 answers "$web" && wait_for 30 answers "$port"
named() { timeout 60 "$xget" -n "$1" -r 0 --serve no . "$work/named" 2> "$work/fetch.log"; }
check "a server that talks nonsense is passed over" named "127.0.0.1:$web,127.0.0.1:$port"
check "and named with its reason" grep "127.0.0.1:$web: it .*; trying 127.0.0.1:$port" "$work/fetch.log"
none_answers() {
    named "127.0.0.1:$web,127.0.0.1:$nobody"
    [ $? = 3 ] && tail -n 1 "$work/fetch.log" | grep "127.0.0.1:$web: it .*127.0.0.1:$nobody: "
}
check "where none is any good the error names each with its reason" none_answers
end TERM web master
finish
