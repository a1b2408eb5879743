# shellcheck shell=bash
# Other people's 9P programs, each from its registry, after ../lib.sh; and the tables of docs/interop.md.

interop=$repo/tests/interop
peers=$target/interop                       # what was downloaded and built stays here

# python_client NAME VERSION: a Python with that package of PyPI, and no other, as $python
python_client() {
    local venv=$peers/$1-$2
    python=$venv/bin/python
    [ -e "$venv/complete" ] && return
    python3 -c 'import ensurepip' 2> /dev/null || apt_install python3-venv
    {
        rm -rf "$venv" && python3 -m venv "$venv" &&
            timeout 120 "$venv/bin/pip" install -q "$1==$2" && touch "$venv/complete"
    } > "$work/pip.log" 2>&1
}

# Compiled in little time: their speed is not what is tested.
plainly=(env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16)

# rust_peers: the programs of interop/peers, which use crates, in $peers/build/release
rust_peers() {
    timeout 600 "${plainly[@]}" cargo build --locked --release --manifest-path "$interop/peers/Cargo.toml" \
        --target-dir "$peers/build" > "$work/peers.log" 2>&1
}

# rust_program NAME VERSION: a program of crates.io, as $peers/bin/NAME
rust_program() {
    timeout 600 "${plainly[@]}" cargo install "$1" --version "$2" --locked --root "$peers" --target-dir "$peers/build" \
        > "$work/install.log" 2>&1
}

# ixpc: libixp's program, as $ixpc, which finds its library in $libixp. Debian 11 is the last that has it.
ixpc() {
    debian_release bullseye && unpack "$peers/libixp" libixp-dev libixp0
    local good=$?
    apt_options=()
    ixpc=$peers/libixp/root/usr/bin/ixpc
    libixp=$(dirname "$peers"/libixp/root/usr/lib/*/libixp.so.0)
    return $good
} > "$work/ixpc.log" 2>&1

# gvisor_tool: a program that uses gVisor's 9P client, as $gvisor_tool
gvisor_tool() {
    gvisor_tool=$peers/gvisor_tool
    [ -x "$gvisor_tool" ] && [ "$gvisor_tool" -nt "$interop/gvisor_tool.go" ] && return
    GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$peers/go-cache \
        timeout 300 go build -o "$gvisor_tool" "$interop/gvisor_tool.go"
} > "$work/gvisor.log" 2>&1

# version_of PACKAGE: the upstream part of a Debian package's version
version_of() {
    dpkg-query -W -f '${Version}' "$1" 2> /dev/null | sed 's/^[0-9]*://; s/[-+~].*//'
}

# row CELL...: a line of a table of docs/interop.md, which has to be there like that
row() {
    local line
    line="|$(printf ' %s |' "$@")"
    note "$line"
    if grep -qxF -- "$line" "$repo/docs/interop.md"; then
        pass "docs/interop.md says so"
    else
        fail "docs/interop.md says otherwise of $1; its line should be: $line"
    fi
}
