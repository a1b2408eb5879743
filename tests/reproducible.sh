#!/bin/bash
# Two builds of a commit are the same, byte by byte: the static node, built in two directories by two users with
# nothing in common but the commit and the compiler; and the Debian packages made of the same programs.
. "$(dirname "$0")/lib.sh"
need_root
need unshare:util-linux git:git dpkg-deb:dpkg make:make
# The first build is that of tests/static.sh, if it is there already.
[ "$("$repo/static/build" --which)" != glibc ] || apt_install rustc-web rust-web-src musl-tools gcc libc6-dev

# ---- the programs

(cd "$repo" && CARGO_TARGET_DIR=$target static/build) > "$work/first.log" 2>&1 ||
    { fail "it is built once" "$work/first.log"; finish; }

# The source as it is here, somewhere else, and of another age.
other=$work/a/directory/elsewhere
mkdir -p "$other" "$work/cargo" "$work/home"
(cd "$repo" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$other")
find "$other" -type f -exec touch -d 2019-02-03 {} +
"$repo/packaging/version" > "$other/.version"
# The same crates from another place; without it they would be downloaded once more.
cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry "$work/cargo/"
cp "${CARGO_HOME:-$HOME/.cargo}"/config* "$work/cargo/" 2> /dev/null

# elsewhere COMMAND...: there, by somebody else, in another environment
elsewhere() {
    local rustup=${RUSTUP_HOME:-$HOME/.rustup}
    (cd "$other" && umask 077 && env -i PATH="$PATH" RUSTUP_HOME="$rustup" HOME="$work/home" USER=somebody TZ=Asia/Tokyo \
        LANG=C.UTF-8 CARGO_HOME="$work/cargo" CARGO_TARGET_DIR="$work/built" CARGO_BUILD_JOBS=3 \
        unshare --map-user=1000 --map-group=1000 "$@")
}
elsewhere static/build xget-node > "$work/second.log" 2>&1 || { fail "it is built again" "$work/second.log"; finish; }
check "two builds of the static node are the same" cmp "$target/static/xget-node" "$work/built/static/xget-node"
# Of a home what cargo and rustup have there: initramfs-tools, too, has a directory of that name.
check "the node says nothing of where it was built" sh -c "! grep -aqF -e '$target' -e '$HOME/.' -e '$repo/' '$target/static/xget-node'"

# ---- the packages

hashes() { (cd "$1/packages" && sha256sum ./*.deb); }
rm -f "$target"/packages/*.deb
(cd "$repo" && CARGO_TARGET_DIR=$target packaging/deb) > "$work/deb.log" 2>&1 || { fail "the packages are made" "$work/deb.log"; finish; }
# Nobody else has built that one.
cp "$target/static/xget" "$work/built/static/"
elsewhere packaging/deb > "$work/deb.log" 2>&1 || { fail "the packages are made again" "$work/deb.log"; finish; }
check "two builds of $(hashes "$target" | wc -l) Debian packages are the same" diff <(hashes "$target") <(hashes "$work/built")
finish
