#!/bin/bash
# The static node for another processor: it is built, and fetches and serves under qemu-user.
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 nsenter:util-linux qemu-aarch64-static:qemu-user-static aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu readelf:binutils dpkg:dpkg \
    /usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross
need_xget

# ---- it is built

# foreign_musl: Debian's musl for arm64, unpacked in $work/musl, without telling this system of another processor
foreign_musl() {
    local apt=$work/apt options
    mkdir -p "$apt"/{lists,archives}/partial && : > "$apt/status" && cd "$apt" || return
    options=(-q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User="$(id -un)"
        -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Acquire::Languages=none)
    apt-get "${options[@]}" update && apt-get "${options[@]}" download musl-dev && dpkg -x musl-dev_*.deb "$work/musl"
}

export ARCH=aarch64 MUSL=$work/musl/usr/lib/aarch64-linux-musl CARGO_TARGET_DIR=$target
way=musl
if [ "$("$repo/static/build" --which)" != musl ]; then
    way=build-std
    if ! foreign_musl > "$work/musl.log" 2>&1 || { [ "$("$repo/static/build" --which)" != $way ] &&
        ! apt_install rustc-web rust-web-src; }; then
        skip "a static node for aarch64" "Debian, and apt-get install rustc-web rust-web-src"
        finish
    fi
fi
node=$target/static-aarch64/xget-node
"$repo/static/build" $way xget-node > "$work/build.log" 2>&1 || { fail "it is built" "$work/build.log"; finish; }
pass "it is built: $(stat -c %s "$node") bytes"
check "BLAKE3 has NEON" grep 'hashing in assembly' "$work/build.log"

# is_static PROGRAM: it asks for no loader, and for no library
is_static() { ! readelf -lW "$1" | grep INTERP && ! readelf -dW "$1" | grep NEEDED; }
check "it is for aarch64" sh -c "readelf -hW '$node' | grep 'Machine: .*AArch64'"
check "it is static" is_static "$node"

# ---- it works

emulated=(qemu-aarch64-static "$node")
version=$("${emulated[@]}" --version)
check "it says its version" test "$version" = "$("$xget" --version)"

net_up 2 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
mkdir "$work/srv"
small_tree "$work/srv"
random_file "$work/srv/image" 16M
master 0 "$work/srv" || { fail "the master starts" "$(log master)"; finish; }

# fetch NAME HOST SERVER OPTION...: all there is, in an emulated process
fetch() {
    local name=$1 host=$2 server=$3; shift 3
    start "$name" "$host" "${emulated[@]}" -n "$(ip_of "$server")" -p $port -q -D 1 "$@" . "$work/$name"
}

fetch first 1 0 --serve forever
check "it fetches from a master of this processor" all_whole 60 first
check "and gets what is served" same "$work/srv" "$work/first"
end TERM master
fetch second 2 1 --serve no
exit_of second 60
check "another one fetches from that, with the master gone" [ $code -eq 0 ]
check "and gets the same" same "$work/srv" "$work/second"
note "$(summary second)"
finish
