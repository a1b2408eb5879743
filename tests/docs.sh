#!/bin/bash
# The book: its pages and links fit, and every command that README.md and docs/ show is run.
#
#   tests/docs.sh [PAGE...]     only these: README.md, docs/security.md
#
# Each page has a place of its own, in which its commands are run in order, from the source directory: a copy
# of this machine's files, a network with nobody else, the hosts `head` and `node1` (both this one), and a
# directory /srv/boot. apt-get and systemctl are stand-ins there, which look whether the packages and the
# units exist. tests/book.py says which blocks are commands.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines tc:iproute2 python3:python3 minisign:minisign make:make dracut:dracut-core \
    mkinitramfs:initramfs-tools-core cpio:cpio zstd:zstd gcc:gcc
book=$repo/tests/book.py
pages=("$@")
[ $# -gt 0 ] || pages=("$repo/README.md" "$repo"/docs/[a-z]*.md)

# What the program says of itself is what the book says.
same_help() {
    cp "$repo/docs/command.md" "$work/command.md"
    sed -n '/^<!-- xget --help -->/,/^```$/p' "$work/command.md" | sed '1,2d;$d' | diff - <("$xget" --help) &&
        return
    echo "tests/book.py help $xget puts it right"
    return 1
}

# ---- the place

# world DIR: makes it below DIR, in namespaces of its own
world() {
    local root=$1/root
    mount -t tmpfs -o "size=4g" world "$1" && mkdir "$root" && over / "$1" || return 1
    mount -t proc proc "$root/proc" && mount -t sysfs sysfs "$root/sys" && mount --rbind /dev "$root/dev" &&
        mount -t tmpfs -o mode=755 run "$root/run" && mount -t tmpfs -o mode=1777 tmp "$root/tmp" || return 1
    # These may be where something else is mounted, /tmp for one.
    over "$repo" "$1" && { [ -d "$root$target" ] || over "$target" "$1"; } || return 1
    ip link set lo up && ip address add 10.0.0.1/32 dev lo || return 1
    printf '127.0.0.1 localhost\n10.0.0.1 head node1\n' > "$root/etc/hosts"
    mkdir -p "$root"/{srv/boot/images,srv/tftp,boot,lib/modules,etc/xget}
    cp "$xget" "$root/usr/local/bin/xget"
    cp "$boot/$image" "$root/srv/boot/$image"
    cp "$vmlinuz" "$root/srv/boot/vmlinuz"
    cp "$kernels/root/boot"/{vmlinuz,config}-"$version" "$root/boot/"
    head -c 2M /dev/urandom | tee "$root/srv/boot/initrd.img" > "$root/boot/initrd.img-$version"
    cp -a "$kernels/root/lib/modules/$version" "$root/lib/modules/"
    # An initramfs that is made quickly may be large.
    echo 'compress="zstd -q -1"' > "$root/etc/dracut.conf.d/quickly.conf" &&
        echo COMPRESSLEVEL=1 > "$root/etc/initramfs-tools/conf.d/quickly" || return 1
    stand_in apt-get <<'STUB'
case " $* " in *" update "*) exit ;; esac
for word; do
    case $word in install | -*) continue ;; esac
    apt-cache show "$word" > /dev/null || { echo "there is no package $word"; exit 100; }
done
STUB
    stand_in systemctl <<'STUB'
for word; do
    word=${word%.service}
    case $word in
    xget*) ls /usr/lib/systemd/system/"$word".service /usr/local/lib/systemd/system/"$word".service 2> /dev/null | grep . || exit 1 ;;
    esac
done
STUB
    stand_in uname <<STUB
[ "\$*" = -r ] && echo $version || exec /bin/uname "\$@"
STUB
    # Programs that are given need not be built.
    [ -z "${XGET:-}" ] || { install -D "$XGET" "$root$target/release/xget" && stand_in cargo < /dev/null; }
    [ -z "${XGET_NODE:-}" ] || {
        install -D "$XGET_NODE" "$root$target/static/xget-node" && install "$xget" "$root$target/static/xget" &&
            printf '#!/bin/sh\n' > "$root$repo/static/build"
    }
}

# over DIR WORLD: the directory as it is; what is changed in it stays in that place
over() {
    local layers
    layers=$(mktemp -d "$2/layersXXX") && mkdir -p "$layers"/{up,work} "$2/root$1" &&
        mount -t overlay world -o "lowerdir=$1,upperdir=$layers/up,workdir=$layers/work" "$2/root$1"
}

stand_in() { { echo '#!/bin/sh'; cat; } > "$root/usr/local/bin/$1"; chmod 755 "$root/usr/local/bin/$1"; }

# run_page PAGE: its commands, for at most so long
run_page() {
    "$book" script "$1" > "$work/page.sh" || return 1
    mkdir -p "$work/world"
    export -f world over stand_in
    export xget boot image vmlinuz version kernels target repo work
    timeout $((400 * ${XGET_PATIENCE:-1})) unshare --mount --net --pid --fork --kill-child bash -c '
        world "$work/world" || { echo "there is no place to run it in"; exit 1; }
        cp "$work/page.sh" "$work/world/root/page.sh"
        export CARGO_NET_OFFLINE=true HOME=/root PATH=/usr/local/sbin:/usr/local/bin:$PATH
        # make has variables of these names, and hands on what the environment has too.
        exec env -u XGET -u XGET_NODE chroot "$work/world/root" bash -c "cd $repo && exec bash /page.sh"
    ' < /dev/null > "$work/page.out" 2>&1
}

# judge PAGE
judge() {
    local page=${1#"$repo/"} commands
    commands=$("$book" script "$1" | grep -c '^echo .@@')
    [ "$commands" -gt 0 ] || return 0
    local before=$SECONDS
    if run_page "$1"; then pass "$page: $commands blocks of commands do what they say ($((SECONDS - before)) s)"; else
        fail "$page: the commands at $(grep '^@@' "$work/page.out" | tail -n 1 | cut -d ' ' -f 2)" "$work/page.out"
    fi
}

# ---- the book

check "pages, links, headings and blocks are what they should be" "$book" check
# Debian has no mdbook: where it is not installed the check above has to do.
! command -v mdbook > /dev/null || check "mdbook makes pages of it" mdbook build --dest-dir "$work/book" "$repo"
check "docs/logs.md lists every message that the program prints" "$repo/tests/messages.py"
check "docs/command.md shows what xget --help prints" same_help

make_image > "$work/image.log" 2>&1 || { fail "an image is made" "$work/image.log"; finish; }
for page in "${pages[@]}"; do judge "$(realpath "$page")"; done

mapfile -t unrun < <("$book" norun)
check "few commands are not run, and each says why" \
    [ "${#unrun[@]}" -le 30 -a -z "$(printf '%s\n' "${unrun[@]}" | grep 'nobody says')" ]
for block in "${unrun[@]}"; do note "not run: $block"; done
finish
