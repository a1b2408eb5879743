#!/bin/bash
# The Linux kernel's own 9P client, in virtual machines with the kernels of several of Debian's releases.
# They mount the master's tree in all three dialects, with and without a cache, in small messages and in large
# ones (Debian 12's in all these ways, the others in some): they read every file, ask for everything, run
# programs from there, and are refused every change. Then the master is started anew. The table that comes
# of it is in docs/interop.md. KERNELS names other releases.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/interop/lib.sh"
need_vm getfattr:attr python3:python3
need_xget

most_seconds=240

# How each mounts: DIALECT CACHE MSIZE. A connection over TCP has messages of at most 1 MiB.
all_mounts() {
    local version how
    for version in 9p2000.L 9p2000.u 9p2000; do
        for how in "none 8192" "none 1048576" "loose 131072" "mmap 65536"; do echo "$version $how"; done
    done
}
few_mounts() {
    printf '%s\n' "9p2000.L none 1048576" "9p2000.L loose 131072" "9p2000.L mmap 65536" "9p2000.u loose 131072" \
        "9p2000 none 8192"
}

# add_program DIR COMMAND: with the libraries that it needs, for programs that are linked dynamically
add_program() {
    local file
    mkdir -p "$1/bin" && cp "$(command -v "$2")" "$1/bin/"
    for file in $(ldd "$(command -v "$2")" | grep -o '/[^ ]*'); do
        mkdir -p "$1/$(dirname "$file")" && cp -nL "$file" "$1/$file"
    done
}

# ---- what is served

src=$work/src
mkdir -p "$src/boot" "$src/many" "$src/empty" "$src/static"
random_file "$src/boot/kernel" 3000000
echo small > "$src/boot/small"
: > "$src/boot/nothing"
ln -s ../boot/kernel "$src/boot/link"
for i in $(seq 200); do echo "$i" > "$src/many/file-with-a-longer-name-$i"; done
cp "$(command -v busybox)" "$src/static/"
# Its linker maps the libraries into memory.
add_program "$src/dynamic" od
chmod -R a+rX "$src" && chmod 640 "$src/boot/small"
touch -d '2001-02-03 04:05:06' "$src/boot/small"

# What the machine says of all of it, said of the tree here.
hash() { md5sum | cut -c 1-32; }
names() { find . | LC_ALL=C sort; }
files() { find . -type f | LC_ALL=C sort | tr '\n' '\0' | xargs -0 "$@"; }
said_here() {
    cd "$1" || return
    names_here=$(names | hash)
    contents_here=$(files md5sum | hash)
    stats_here=$(files stat -c '%n %s %a %u %g %Y' | hash)
}
said_here "$src"; names=$names_here contents=$contents_here stats=$stats_here
# Plain 9P2000 knows no links: there the link is a file that holds its target.
mkdir "$work/plain"
cp -a "$src/." "$work/plain/" && rm "$work/plain/boot/link" && printf ../boot/kernel > "$work/plain/boot/link"
said_here "$work/plain"; plain_contents=$contents_here
cd "$repo" || exit

# ---- a machine that mounts, looks, and prints what it finds

guest=$work/guest
busybox_tree "$guest"
add_program "$guest" getfattr
mkdir "$guest/m"
cat > "$guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for m in virtio_pci virtio_net 9pnet_fd 9p; do modprobe $m 2> /dev/null; done
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
for word in $(cat /proc/cmdline); do case $word in xport=*) xport=${word#xport=} ;; esac; done
reason() { sed 's/.*: //'; }
hash() { md5sum | cut -c 1-32; }
files() { find . -type f | sort | tr '\n' '\0' | xargs -0 "$@"; }
mounts() { mount -t 9p -o trans=tcp,port=$xport,version=$1,cache=$2,msize=$3 10.0.2.2 /m 2> /tmp/e; }
look() {
    mounts $* || { echo "LOOK $* mount: $(reason < /tmp/e)"; return; }
    say="LOOK $*"
    cd /m
    echo "$say names $(find . | sort | hash)"
    echo "$say ls $(ls -lR . | grep -c '^[-dl]r')"
    echo "$say contents $(files md5sum | hash)"
    [ $1 = 9p2000 ] || echo "$say stats $(files stat -c '%n %s %a %u %g %Y' | hash)"
    echo "$say link $(readlink boot/link)"
    echo "$say followed $(cat boot/link | hash)"
    echo "$say touch $(touch new 2>&1 | reason)"
    echo "$say write $( (echo x > boot/small) 2>&1 | reason)"
    echo "$say unlink $(rm boot/small 2>&1 | reason)"
    echo "$say mkdir $(mkdir boot/new 2>&1 | reason)"
    echo "$say missing $(cat nowhere 2>&1 | reason)"
    echo "$say below $(cat boot/small/x 2>&1 | reason)"
    echo "$say status $(cut -c 1-11 .xget/status)"
    echo "$say static $(static/busybox echo runs)"
    echo "$say mmap $(LD_LIBRARY_PATH=$(dirname $(find dynamic -name 'libc.so*')) $(find dynamic -name 'ld-linux*') dynamic/bin/od -An -c boot/small | tr -d ' \n')"
    echo "$say df $(df . | tail -n 1 | awk '{ print ($2 > 3000) ? "counts" : $2 }')"
    echo "$say getfattr $(getfattr -d boot/small 2>&1 | reason)"
    cd /
    umount /m
}
while read -r mount; do look $mount; done < /mounts
echo LOOKED
# With a mount whose master goes away.
mounts 9p2000.L none 131072
cat /m/boot/small
echo READY
until ! cat /m/boot/small > /dev/null 2> /tmp/e; do sleep 1; done
echo "AFTER gone $(reason < /tmp/e)"
umount /m
until mounts 9p2000.L none 131072; do sleep 1; done
echo "AFTER again $(cat /m/boot/small)"
echo OVER
poweroff -f
INIT
chmod 755 "$guest/init"

serve() {
    start master - "$xget" -p "$1" --listen 127.0.0.1 --cache none "$src"
    wait_for 30 grep -q 'serving .* on ' "$(log master)"
}

# seen DIALECT CACHE MSIZE WHAT VALUE
seen() { grep -qxF "LOOK $1 $2 $3 $4 $5" "$work/looks" || { grep -F "LOOK $1 $2 $3 $4" "$work/looks"; return 1; }; }

# ---- what it finds

kernel_hash=$(hash < "$src/boot/kernel")
entries=$(($(find "$src" -mindepth 1 | wc -l)))

# judge KERNEL: all that the machine has printed of the mounts in $guest/mounts
judge() {
    local kernel=$1 version before refusal all target_of_link followed df attributes mount change is
    for version in $(cut -d ' ' -f 1 "$guest/mounts" | uniq); do
        before=$failed
        refusal="Read-only file system" all=$contents target_of_link=../boot/kernel followed=$kernel_hash
        # Only 9P2000.L asks the server for these; and the kernel answers for it in the others.
        df=counts attributes="Operation not supported"
        [ "$version" = 9p2000.L ] || { df=0; attributes=; }
        if [ "$version" = 9p2000 ]; then
            refusal="Operation not permitted" all=$plain_contents target_of_link=
            followed=$(printf ../boot/kernel | hash)
        fi
        while read -r mount; do
            # shellcheck disable=SC2086 # three words
            set -- $mount
            local who="$kernel $mount"
            check "$who lists every name" seen "$@" names "$names"
            check "$who lists them in long form" seen "$@" ls "$entries"
            check "$who reads every byte" seen "$@" contents "$all"
            [ "$version" = 9p2000 ] || check "$who has sizes, modes, owners and times" seen "$@" stats "$stats"
            check "$who reads links as its dialect can" seen "$@" link "$target_of_link"
            check "$who follows them" seen "$@" followed "$followed"
            for change in touch write unlink mkdir; do
                check "$who is refused to $change" seen "$@" $change "$refusal"
            done
            check "$who is told what is not there" seen "$@" missing "No such file or directory"
            check "$who is told what is below a file" seen "$@" below "Not a directory"
            # With cache=loose the kernel reads no further than the size that it was told.
            [ "$2" = loose ] || check "$who reads a control file" seen "$@" status "generation="
            check "$who runs a static program" seen "$@" static runs
            check "$who maps files into memory" seen "$@" mmap 'small\n'
            check "$who tells df what it can" seen "$@" df $df
            check "$who has no extended attributes" seen "$@" getfattr "$attributes"
        done < <(grep -F "$version " "$guest/mounts")
        is=yes
        [ $failed = "$before" ] || is=NO
        row "Linux v9fs" "$kernel" Debian "${version/9p/9P}" "$(caches "$version")" "$is"
    done
}

# caches DIALECT: with which it was mounted
caches() { awk -v version="$1" '$1 == version { print $2 }' "$guest/mounts" | uniq | paste -sd , | sed 's/,/, /g'; }

# ---- a machine with one of the kernels

# look_with DIR MOUNTS: with the kernel $version that lies below DIR; MOUNTS is a function that prints the ways
look_with() {
    local dir=$1 kernel=$version what began=$SECONDS
    $2 > "$guest/mounts"
    rm -rf "$guest/lib/modules"
    # Before Linux 5.17 9pnet had what 9pnet_fd has.
    add_modules "$guest" "$dir/root" virtio_pci virtio_net 9p 9pnet_fd 2> /dev/null
    pack "$guest" "$work/guest.img"
    serve 0 || { fail "the master starts" "$(log master)"; return; }
    port=$(sed -n 's/.* on 127\.0\.0\.1:\([0-9]*\):.*/\1/p' "$(log master)")

    vm machine - -m 512 -no-reboot -kernel "$dir/root/boot/vmlinuz-$kernel" -initrd "$work/guest.img" \
        -append "console=ttyS0 panic=-1 quiet xport=$port" \
        -netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile=
    what="a machine with kernel $kernel boots and looks at the tree"
    if vm_prints $most_seconds machine '^LOOKED'; then pass "$what"; else
        fail "$what" "$(console machine)" "$(log machine)"; fi
    vm_lines machine | grep -a '^LOOK ' > "$work/looks"
    judge "$(cut -d . -f 1,2 <<< "$kernel")"

    # A master that is started anew.
    if vm_prints 30 machine '^READY'; then
        end TERM master
        check "a mount whose master is gone fails" vm_prints 30 machine '^AFTER gone .'
        serve "$port" || fail "the master starts again" "$(log master)"
        check "it can be mounted again when the master is back" vm_prints 30 machine '^AFTER again small'
    else
        fail "a machine waits for the master to go away" "$(console machine)"
    fi
    end KILL machine
    end TERM master
    note "kernel $kernel: $((SECONDS - began)) s"
}

# What was downloaded stays; cloud kernels lack 9p.
for release in ${KERNELS:-bookworm bullseye trixie}; do
    kernels=$target/test-kernel-$release
    if ! debian_release "$release"; then
        skip "the kernel of Debian's $release" "a mirror that has this release"
    elif [ "$release" = bookworm ]; then
        debian_kernel linux-image-amd64 "$target/test-kernel-generic"
        look_with "$target/test-kernel-generic" all_mounts
    elif unpack_kernel linux-image-amd64 "$kernels"; then
        look_with "$kernels" few_mounts
    else
        fail "the kernel of Debian's $release comes from its mirror" "$work/kernel.log"
    fi
done
finish
