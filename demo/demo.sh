#!/bin/sh
# Puts a kernel, an initrd and a root image onto five nodes at once, all on this machine, compares
# every copy and prints who sent what to whom. Needs no root, and leaves nothing behind.
#
#   demo/demo.sh            XGET=path/to/xget to run another binary, TMPDIR for another place
set -u

nodes=5
least_mib=200          # less would be over before anybody could share
seconds=120            # limit for every node
first_port=20101       # node 1 serves here if it can, node 2 on the next one ...

here=$(cd "$(dirname "$0")/.." && pwd) || exit 1
xget=${XGET:-${CARGO_TARGET_DIR:-$here/target}/release/xget}
if [ ! -x "$xget" ]; then
    (cd "$here" && cargo build --release --locked) || exit 1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/xget-demo.XXXXXX") || exit 1
pids=
clean_up() {
    for pid in $pids; do kill "$pid" 2>/dev/null; done
    wait
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

die() {
    echo "demo: $1" >&2
    shift
    for log; do sed "s/^/  $(basename "$log"): /" "$log" >&2; done
    exit 1
}

kib() { du -sk "$1" | cut -f 1; }

room=$(df -Pk "$work" | awk 'NR == 2 { print $4 }')
[ "$room" -gt $((least_mib * 1024 * 2 * (nodes + 1))) ] ||
    die "there is too little room in ${TMPDIR:-/tmp}; set TMPDIR to a place with 3 GB"

# ---- what is served

src=$work/boot
mkdir "$src" "$src/empty" "$src/etc"
# shellcheck disable=SC2012  # find does not sort
newest() { ls -t "$@" 2>/dev/null | head -n 1; }
kernel=$(newest /boot/vmlinuz-* /boot/vmlinux-*)
initrd=$(newest /boot/initrd.img-* /boot/initramfs-*.img /boot/initrd-*)
if [ -n "$kernel" ] && [ -r "$kernel" ] && [ -n "$initrd" ] && [ -r "$initrd" ]; then
    what="this machine's own kernel and initrd"
    cp "$kernel" "$src/vmlinuz"
    cp "$initrd" "$src/initrd.img"
else
    what="a made-up kernel and initrd (none in /boot can be read)"
    head -c 12M /dev/urandom > "$src/vmlinuz"
    head -c 60M /dev/urandom > "$src/initrd.img"
fi
rest=$((least_mib * 1024 - $(kib "$src")))
[ "$rest" -le 0 ] || head -c "${rest}K" /dev/urandom > "$src/root.img"
i=0
while [ $i -lt 100 ]; do
    i=$((i + 1))
    echo "small file $i" > "$src/etc/file-$i"
done
: > "$src/etc/nothing"
ln -s vmlinuz "$src/kernel"
ln -s ../initrd.img "$src/etc/initrd"
chmod 600 "$src/etc/file-1"
chmod 755 "$src/etc/file-2"

# ---- the master

"$xget" --port 0 --listen 127.0.0.1 --cache none --debug 1 "$src" 2> "$work/master.log" &
pids=$!
tries=0
until grep -q '^xget: generation' "$work/master.log"; do
    tries=$((tries + 1))
    { [ $tries -le 600 ] && kill -0 "$pids" 2>/dev/null; } ||
        die "the master does not start" "$work/master.log"
    sleep 0.1
done
port=$(sed -n 's/^xget: serving .* on [^ ]*:\([0-9]*\): .*/\1/p' "$work/master.log")
echo "The master serves $what:"
sed -n 's/^xget: serving .* on [^ ]*:[0-9]*: /  /p' "$work/master.log"
echo "Its port on this machine's loopback is $port. $nodes nodes fetch it all at once ..."
echo

# ---- the nodes

i=0
node_pids=
while [ $i -lt $nodes ]; do
    i=$((i + 1))
    timeout $seconds "$xget" --quiet --debug 1 --listen 127.0.0.1 --port $((first_port + i - 1)) \
        --server "127.0.0.1:$port" . "$work/node-$i" 2> "$work/node-$i.log" &
    node_pids="$node_pids $!"
    pids="$pids $!"
done
i=0
for pid in $node_pids; do
    i=$((i + 1))
    wait "$pid"
    code=$?
    [ $code -ne 124 ] || die "node $i is not done after $seconds s" "$work/node-$i.log"
    [ $code -eq 0 ] || die "node $i ended with exit code $code" "$work/node-$i.log"
done

# ---- who sent what

awk -v nodes=$nodes -v master="127.0.0.1:$port" -v first_port=$first_port '
function mib(number, unit) {
    return unit == "B" ? number / 1048576 : unit == "KiB" ? number / 1024 : \
        unit == "GiB" ? number * 1024 : number
}
FNR == 1 { node++ }
$4 == "from" && $3 ~ /B$/ {                        # xget: 35.1 MiB from 127.0.0.1:20102
    split($5, part, ":")
    sender = $5 == master ? 0 : part[2] - first_port + 1
    if (sender < 0 || sender > nodes) sender = nodes + 1     # its usual port was taken
    got[node, sender] += mib($2, $3)
    if (sender > nodes) others = 1
}
/: fetched / {                                       # xget: fetched 9 files: 200.0 MiB in 2.21 s (90.3 MiB/s), ...
    for (i = 1; i < NF; i++) if ($i == "in") { seconds[node] = $(i + 1); rate[node] = $(i + 3) " " $(i + 4) }
    gsub(/[(),]/, "", rate[node])
}
END {
    last = others ? nodes + 1 : nodes
    printf "%-8s %7s %13s   %s\n", "", "", "", "MiB that came from"
    printf "%-8s %7s %13s %8s", "", "seconds", "rate", "master"
    for (i = 1; i <= last; i++) printf " %8s", (i > nodes ? "others" : "node " i)
    print ""
    for (node = 1; node <= nodes; node++) {
        printf "%-8s %7s %13s", "node " node, seconds[node], rate[node]
        for (i = 0; i <= last; i++) {
            sum[i] += got[node, i]
            all += got[node, i]
            printf " %8s", i == node ? "-" : sprintf("%.1f", got[node, i])
        }
        print ""
    }
    printf "%-8s %7s %13s", "sent", "", ""
    for (i = 0; i <= last; i++) printf " %8.1f", sum[i]
    print "\n"
    printf "The master sent %.2f times the image, not %d times: %.0f %% came from other nodes.\n",
        sum[0] * nodes / all, nodes, 100 * (all - sum[0]) / all
}' "$work"/node-?.log

# ---- is it all there, and right?

# Every file with its hash and mode, every directory, every link and where it leads.
describe() (
    cd "$1" || exit 1
    find . -type f -exec sha256sum {} + | sort -k 2
    find . ! -type l ! -name . -exec stat -c '%F %a %n' {} + | sort
    find . -type l -exec sh -c 'for link; do echo "$link -> $(readlink "$link")"; done' sh {} + | sort
)
describe "$src" > "$work/expected"
wrong=0
i=0
while [ $i -lt $nodes ]; do
    i=$((i + 1))
    describe "$work/node-$i" > "$work/found"
    if ! diff "$work/expected" "$work/found" > "$work/difference"; then
        wrong=$((wrong + 1))
        echo "DIFFERENT: node $i does not have what the master serves:"
        sed 's/^/  /' "$work/difference" | head -n 20
    fi
done
[ $wrong -eq 0 ] || { echo "$wrong of $nodes copies are wrong."; exit 1; }
echo "All $nodes copies are the same as the master's, byte for byte ($(wc -l < "$work/expected") checks each)."

# ---- what next

cat << 'END'

Next, on machines of your own: the program is target/release/xget. Serve a directory with
    xget /srv/boot
and fetch it on each node, where HOST is the machine that serves, with
    xget -n HOST . /tmp/new
To boot machines from it, read docs/tutorial.md. To run the tests: make test
END
command -v qemu-system-x86_64 > /dev/null || exit 0
if [ -t 0 ] && [ -t 1 ]; then
    printf '\nQEMU is here. Boot a virtual machine whose root comes by xget? [y/N] '
    read -r answer
    case $answer in [yY]*) exec "$here/demo/boot.sh" ;; esac
else
    echo "QEMU is here: demo/boot.sh boots a virtual machine whose root comes by xget."
fi
