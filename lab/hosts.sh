# shellcheck shell=bash
# What tests and laboratories share: processes, hosts in network namespaces, a master, Debian's kernels.
#
# Whoever sources this sets $test_name, and $work, a directory for logs; and says by `ns HOST` what namespaces
# are called, and by `skip`, `fail` and `finish` what becomes of what is missing. XGET names another program.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$repo/target}")
xget=${XGET:-$target/release/xget}
port=20004

# ---- what is needed

# exclusively COMMAND...: while no other script is in here; they share packages and downloads
exclusively() {
    mkdir -p "$target"
    (flock 8 && "$@" 8>&-) 8> "$target/packages.lock"
}

apt_refreshed=$target/apt-refreshed
apt_install() { exclusively apt_install_alone "$@"; } > "$work/apt.log" 2>&1
apt_install_alone() {
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return 1
    export DEBIAN_FRONTEND=noninteractive
    [ -n "$(find "$apt_refreshed" -mmin -600 2> /dev/null)" ] ||
        { apt-get -q -o DPkg::Lock::Timeout=180 update && touch "$apt_refreshed"; } || return 1
    apt-get -q -o DPkg::Lock::Timeout=180 install -y --no-install-recommends "$@"
}

# is_here COMMAND|/FILE
is_here() { case $1 in /*) [ -e "$1" ] ;; *) command -v "$1" > /dev/null ;; esac; }

# has COMMAND|/FILE:PACKAGE...: installs what is missing if it may; false if it cannot
has() {
    local pair
    missing=()
    for pair; do
        is_here "${pair%%:*}" || [[ " ${missing[*]} " = *" ${pair#*:} "* ]] ||
            missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# need COMMAND|/FILE:PACKAGE...: the same, or ends the script as skipped
need() {
    has "$@" && return
    skip "$test_name: ${missing[*]} missing" "apt-get install ${missing[*]} (or run it as root)"
    finish
}

need_root() {
    [ "$(id -u)" = 0 ] && return
    skip "$test_name makes network namespaces and mounts" "run it as root"
    finish
}

need_xget() {
    [ -x "$xget" ] || (cd "$repo" && cargo build --release --locked) || { fail "no $xget"; finish; }
}

# ---- time

now() { date +%s.%N; }

# wait_for SECONDS COMMAND...: until it succeeds; looks every $pause seconds
pause=0.05
wait_for() {
    local end=$((SECONDS + $1 * ${XGET_PATIENCE:-1})); shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep "$pause"
    done
}

# ---- processes

declare -A pid=()

# start NAME HOST COMMAND...: in the background in that host's namespace (- is none); log in $work
start() {
    local name=$1 host=$2; shift 2
    local enter=()
    if [ -n "${pid[$name]:-}" ] && is_running "$name"; then
        fail "$name is started twice" "$(log "$name")"
        end KILL "$name"
    fi
    [ "$host" = - ] || enter=(nsenter "--net=/run/netns/$(ns "$host")")
    # Now, not when the process in the background comes to it: what an earlier one of that name has said is
    # not to be taken for its own.
    : > "$work/$name.log"
    # 9 is a laboratory's lock, which is not to outlive it.
    "${enter[@]}" "$@" < /dev/null > "$work/$name.out" 2> "$work/$name.log" 9>&- &
    pid[$name]=$!
}

log() { echo "$work/$1.log"; }

is_running() {
    local stat
    stat=$(cat "/proc/${pid[$1]}/stat" 2> /dev/null) || return 1
    stat=${stat##*) }
    [ "${stat%% *}" != Z ]
}
is_over() { ! is_running "$1"; }

# exit_of NAME SECONDS: waits for its end and sets $code; 124 if it took longer, and it is ended
exit_of() {
    if wait_for "$2" is_over "$1"; then
        wait "${pid[$1]}"; code=$?
    else
        end KILL "$1"; code=124
    fi
    unset "pid[$1]"
}

# end SIGNAL NAME...: bash would report each of them as killed
end() {
    local signal=$1 name; shift
    for name; do kill -"$signal" "${pid[$name]}"; done
    for name; do wait "${pid[$name]}"; done
} 2> /dev/null

# ---- a network of namespaces on a bridge: a switch, and hosts 0 to N

hosts_up=
ip_of() { echo "10.77.0.$(($1 + 1))"; }

# net_up N [MBIT [MS]]: host 0 and N more; MBIT shapes every link in both directions, and from host to
# host it takes MS longer
net_up() {
    local n=$1 mbit=${2:-} ms=${3:-} i
    net_down
    hosts_up="sw $(seq -s ' ' 0 "$n")"
    {
        echo "netns add $(ns sw)"
        for ((i = 0; i <= n; i++)); do
            echo "netns add $(ns $i)"
            echo "link add name p$i netns $(ns sw) type veth peer name eth0 netns $(ns $i)"
        done
    } | ip -batch - || return 1
    {
        echo "link add br0 type bridge mcast_snooping 0"
        echo "link set br0 up"
        for ((i = 0; i <= n; i++)); do echo "link set p$i master br0 up"; done
    } | ip -n "$(ns sw)" -batch - || return 1
    for ((i = 0; i <= n; i++)); do
        printf '%s\n' "link set lo up" "addr add $(ip_of $i)/24 dev eth0" "link set eth0 up" |
            ip -n "$(ns $i)" -batch - || return 1
        [ -z "$mbit" ] || { shape sw p$i "$mbit" && shape $i eth0 "$mbit" "$ms"; } || return 1
    done
}

# shape HOST DEVICE MBIT [MS]: HTB, since it charges large packets by their length on the wire
shape() {
    local qdisc="qdisc add dev $2 root handle 1: htb default 1"
    local class="class add dev $2 parent 1: classid 1:1 htb rate ${3}mbit burst 64k cburst 64k quantum 60000"
    local queue="qdisc add dev $2 parent 1:1 handle 2: bfifo limit 256k"
    [ -z "${4:-}" ] || queue="qdisc add dev $2 parent 1:1 handle 2: netem delay ${4}ms limit 100000"
    printf '%s\n' "$qdisc" "$class" "$queue" | tc -n "$(ns "$1")" -batch -
}

net_down() {
    local host
    for host in $hosts_up; do ip netns del "$(ns "$host")" 2> /dev/null; done
    hosts_up=
}

# ---- xget

# master HOST DIR [OPTION...]: starts it and waits until it serves
master() {
    local host=$1 dir=$2; shift 2
    start master "$host" "$xget" -p $port --cache none -D 1 "$@" "$dir"
    wait_for 60 grep -q 'serving .* on ' "$(log master)"
}

# node NAME HOST SERVER DEST [OPTION...]: fetches all there is
node() {
    local name=$1 host=$2 server=$3 dest=$4; shift 4
    start "$name" "$host" "$xget" -n "$server" -p $port -q -D 1 "$@" . "$dest"
}

is_whole() { grep -q '^xget: fetched ' "$(log "$1")"; }

# all_whole SECONDS NAME...: until each has all its files; true if they do
all_whole() {
    local end=$((SECONDS + $1)) name; shift
    for name; do
        until is_whole "$name"; do
            is_running "$name" || is_whole "$name" || return 1
            [ $SECONDS -lt $end ] || return 1
            sleep 0.05
        done
    done
}

summary() { sed -n 's/^xget: \(fetched .*\)/\1/p' "$(log "$1")"; }

# slowest NAME...: seconds that the last of them took
slowest() {
    local name
    for name; do summary "$name"; done | sed 's/.* in \([0-9.]*\) s (.*/\1/' | sort -n | tail -n 1
}

# status HOST [SERVER]: what the server says of itself and its nodes
status() {
    local host=$1 server=${2:-$(ip_of 0):$port} enter=()
    [ "$host" = - ] || enter=(nsenter "--net=/run/netns/$(ns "$host")")
    timeout 10 "${enter[@]}" "$xget" --status --raw -n "$server"
}

# field NAME: the first value of that name in a status
field() { grep -o "$1=[0-9]*" | head -n 1 | cut -d = -f 2; }

# nothing_only_here HOST: is every chunk in the swarm?
nothing_only_here() { [ "$(status "$1" | field only_here)" = 0 ]; }

# random_file FILE SIZE
random_file() { head -c "$2" /dev/urandom > "$1"; }

# ---- other releases of Debian, and kernels

apt_options=()                              # for apt-get and apt-cache: of which release

# debian_release NAME: from here on apt_options are for that release, from the mirror that this machine
# uses; what this machine itself is or may install does not change
debian_release() {
    apt_options=()
    [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" != "$1" ] || return 0
    local lists=$target/apt-$1 mirror
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2> /dev/null | head -n 1)
    [ -n "$mirror" ] && mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" || return 1
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" > "$lists/sources.list"
    apt_options=(-q -o "Dir::Etc::SourceList=$lists/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o Acquire::Languages=none
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    [ -n "$(find "$lists/refreshed" -mmin -600 2> /dev/null)" ] ||
        { exclusively timeout 180 apt-get "${apt_options[@]}" update && touch "$lists/refreshed"; } > "$work/apt.log" 2>&1
}

# unpack DIR PACKAGE...: below DIR/root, without installing them; what was downloaded stays there
unpack() { exclusively unpack_alone "$@"; }
unpack_alone() (
    mkdir -p "$1" && cd "$1" && shift || return 1
    [ "$(cat root/.unpacked 2> /dev/null)" = "$*" ] && return
    rm -rf ./*.deb root
    apt-get "${apt_options[@]}" download "$@" || return 1
    for package in ./*.deb; do dpkg -x "$package" root || return 1; done
    # As in a system where /lib is /usr/lib.
    [ -e root/lib ] || ln -s usr/lib root/lib
    echo "$*" > root/.unpacked
)

# debian_kernel META DIR: unpacks the kernel that the package META depends on, and sets $version. Ends the
# script if it cannot.
debian_kernel() {
    # An older list of packages may name a kernel that is not on the mirrors any more.
    unpack_kernel "$1" "$2" || { rm -f "$apt_refreshed"; apt_install kmod; unpack_kernel "$1" "$2"; } || {
        skip "a real kernel" "Debian, and apt-get download of what $1 depends on"
        finish
    }
}

# unpack_kernel META DIR: the same, and false if it cannot
unpack_kernel() {
    local image parts
    image=$(depends_of "$1" linux-image)
    [ -n "$image" ] || return 1
    # From Debian 14 on the image is a package without files, which depends on these.
    mapfile -t parts < <(depends_of "$image" 'linux-(base|binary|modules)-[0-9]')
    exclusively prepare_kernel "$2" "${parts[@]:-$image}" > "$work/kernel.log" 2>&1 || return 1
    version=$(version_in "$2")
}
version_in() { ls "$1/root/lib/modules" 2> /dev/null | head -n 1; }

# prepare_kernel DIR PACKAGE...: unpacks them, with lists of the modules
prepare_kernel() {
    local dir=$1 version
    unpack_alone "$@" && version=$(version_in "$dir") && [ -n "$version" ] || return 1
    [ -e "$dir/root/lib/modules/$version/modules.dep" ] || depmod -b "$dir/root" "$version" || return 1
    # From Debian 14 on the kernel itself lies beside its modules.
    [ -e "$dir/root/boot" ] ||
        { mkdir "$dir/root/boot" && ln -s "../lib/modules/$version/vmlinuz" "$dir/root/boot/vmlinuz-$version"; }
}

# depends_of PACKAGE REGEX: the packages that it depends on whose names begin so
depends_of() {
    apt-cache "${apt_options[@]}" depends "$1" | awk -v name="^$2" '$1 == "Depends:" && $2 ~ name { print $2 }'
}
