#!/bin/bash
# The fully static programs: that they are static, that they are small, and that each does its work in
# a root directory that holds nothing else.
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 nsenter:util-linux readelf:binutils cc:gcc dnsmasq:dnsmasq-base

most_xget=$((1792 << 10))
most_node=$((1280 << 10))

# ---- they are built

export CARGO_TARGET_DIR=$target
build() { "$repo/static/build" 2>&1 | tee "$work/build.log"; }
made() { stat -c '%n %i %s %y' "$target"/static/xget{,-node}; }

packages="rustc-web rust-web-src musl-tools"
# shellcheck disable=SC2086  # they are three words
if [ "$("$repo/static/build" --which)" != build-std ] && ! apt_install $packages; then
    skip "static programs that are small" "apt-get install $packages (Debian, as root)"
    [ "$("$repo/static/build" --which)" != glibc ] || finish
fi
build || { fail "both are built"; finish; }
pass "both are built, by $("$repo/static/build" --which)"
before=$(made)
build > /dev/null
check "a second build does nothing" [ "$before" = "$(made)" ]
check "it compiles nothing either" sh -c "! grep -q Compiling '$work/build.log'"
check "BLAKE3 has its assembly" grep 'hashing in assembly' "$work/build.log"

# ---- they are static, and small

# is_static PROGRAM: it asks for no loader, and for no library
is_static() { ! readelf -lW "$1" | grep INTERP && ! readelf -dW "$1" | grep NEEDED; }

# judge NAME BYTES
judge() {
    local program=$target/static/$1 bytes
    bytes=$(stat -c %s "$program")
    check "$1 is static" is_static "$program"
    # With the standard library as it comes they are larger.
    if [ "$("$repo/static/build" --which)" = build-std ]; then
        check "$1 is small: $bytes bytes, at most $2" [ "$bytes" -le "$2" ]
    fi
}
judge xget $most_xget
judge xget-node $most_node

# ---- they work where nothing else is

# new_root DIR NAME: a root directory with this program, and nothing else
new_root() { mkdir -p "$1" && cp "$target/static/$2" "$1/xget"; }

net_up 3 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
home=$(ip_of 0)

new_root "$work/boot" xget
mkdir "$work/boot/srv"
small_tree "$work/boot/srv"
random_file "$work/boot/srv/image" 64M
start master 0 chroot "$work/boot" /xget -D 1 --cache none /srv
wait_for 60 grep -q 'serving .* on ' "$(log master)" || { fail "the master starts" "$(log master)"; finish; }

# A kill tells of no address: the message is what counts.
kill -ILL "${pid[master]}"
check "a fault of the program is said" wait_for 10 grep -q 'internal error at 0x' "$(log master)"
exit_of master 10
start master 0 chroot "$work/boot" /xget -D 1 --cache none /srv
wait_for 60 grep -q 'serving .* on ' "$(log master)" || { fail "the master starts" "$(log master)"; finish; }

start dns 0 dnsmasq --keep-in-foreground --log-facility=- --conf-file=/dev/null --pid-file= --user=root \
    --no-resolv --no-hosts --bind-interfaces --listen-address="$home" --local=/cluster.test/ --host-record=boot.cluster.test,"$home"
wait_for 10 grep -q started "$(log dns)" || { fail "a name server starts" "$(log dns)"; finish; }

# fetch HOST PROGRAM SERVER HOW: all there is, in a root of its own
fetch() {
    local root=$work/root-$1
    start "n$1" "$1" chroot "$root" /xget -n "$3" -q -D 1 --serve no . /new
    exit_of "n$1" 60
    if [ $code -eq 0 ] && same "$work/boot/srv" "$root/new" > "$work/same.log"; then
        pass "$2 fetches from a master named by $4"
    else
        fail "$2 fetches from a master named by $4" "$(log "n$1")" "$work/same.log"
    fi
}

# in_dns DIR, in_hosts DIR: what of /etc that root directory has
in_dns() { mkdir "$1/etc" && printf 'search cluster.test\nnameserver %s\n' "$home" > "$1/etc/resolv.conf"; }
in_hosts() { mkdir "$1/etc" && echo "$home boot" > "$1/etc/hosts"; }

new_root "$work/root-1" xget-node && in_dns "$work/root-1"
fetch 1 xget-node boot "DNS"
new_root "$work/root-2" xget-node && in_hosts "$work/root-2"
fetch 2 xget-node boot "/etc/hosts"
new_root "$work/root-3" xget && in_dns "$work/root-3"
fetch 3 xget boot "DNS"
note "xget-node: $(summary n1)"
note "xget: $(summary n3)"

says_no_master() { (set +o pipefail; chroot "$work/root-1" /xget /new 2>&1 | grep 'no master'); }
check "xget-node says that it has no master" says_no_master
finish
