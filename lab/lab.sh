# shellcheck shell=bash
# What both laboratories are: a place of their own, a status until somebody ends them, and nothing left
# behind, also by one that was killed.
#
# All that a laboratory starts runs in network namespaces whose names begin with its own, and all its
# files are in a tmpfs below /run. So the next one finds what a dead one has left.

set -u -o pipefail
export LC_ALL=C

die() { echo "${0##*/}: $*" >&2; exit 1; }
# For what hosts.sh cannot do without.
skip() { die "$1; to have it: $2"; }
fail() { [ $# -eq 1 ] || tail -n 15 "${@:2}" >&2; die "this did not work: $1"; }
finish() { exit 1; }

# read_options OPTION...: the numbers that are given, over those that stand in $nodes, $rate and so on
read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) sed -n '2,/^$/ { s/^#\{0,1\} \{0,1\}//; p }' "$0"; exit 0 ;;
        -n | --nodes) nodes=$(number "$@") || exit ;;
        --rate) rate=$(number "$@") || exit ;;
        --delay) delay=$(number "$@") || exit ;;
        --size) size=$(number "$@") || exit ;;
        --seconds) seconds=$(number "$@") || exit ;;
        --name) [[ ${2:-} =~ ^[a-z][a-z0-9-]{0,29}$ ]] || die "--name wants a short name in lower case"; lab=$2 ;;
        *) die "what is $1? See --help" ;;
        esac
        shift 2
    done
    [ "$nodes" -ge 1 ] && [ "$nodes" -le 200 ] || die "1 to 200 nodes, not $nodes"
    test_name=$lab
    work=/run/$lab
}

number() { [[ ${2:-} =~ ^[0-9]{1,6}$ ]] && echo "$((10#$2))" || die "$1 wants a number, not ${2:-nothing}"; }

# The namespaces, by the names of net_up's hosts.
ns() { case $1 in sw) echo "$lab-switch" ;; 0) echo "$lab-master" ;; *) echo "$lab-n$1" ;; esac; }

# begin MIB: makes the place for it, with so much room
begin() {
    [ "$(id -u)" = 0 ] || die "it makes network namespaces: run it as root"
    exec 9>> "/run/$lab.lock"
    flock -n 9 || die "$lab runs already: process $(cat "/run/$lab.lock"). --name gives another one its own"
    echo $$ > "/run/$lab.lock"
    [ "$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)" -gt "$1" ] ||
        die "it needs $1 MiB of free memory; a smaller --size or fewer nodes need less"
    tidy
    trap end_lab EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    mkdir -m 700 "$work" && mount -t tmpfs -o "mode=700,size=$1m" "$lab" "$work" || die "there is no room in /run"
}

# tidy: ends all that runs in this laboratory's namespaces, and removes them and the files
tidy() {
    local space pids
    for space in $(ip netns list | grep -oE "^$lab-(switch|master|n[0-9]+)\b"); do
        pids=$(ip netns pids "$space")
        # shellcheck disable=SC2086  # one argument each
        [ -z "$pids" ] || kill -KILL $pids 2> /dev/null
        ip netns del "$space"
    done
    # Whoever still pauses, or asks for the status.
    jobs -p | xargs -r kill -KILL
    wait
    while grep -q " $work " /proc/mounts; do umount "$work" 2> /dev/null || umount -l "$work" || break; done
    [ ! -d "$work" ] || rmdir "$work"
} 2> /dev/null

end_lab() {
    trap '' INT TERM HUP
    tidy
    rm -f "/run/$lab.lock"
    echo "$lab is over; nothing is left of it."
}

# note_pids NAME...: for whoever wants to kill one
note_pids() { local process; for process; do echo "${pid[$process]}" > "$work/$process.pid"; done; }

# live: shows how it goes, until $seconds are over or somebody ends it
live() {
    local end=$((SECONDS + seconds))
    pokes | tee "$work/commands"
    if [ -t 1 ] && can_watch; then
        echo "They are in $work/commands too. Enter shows the status, Ctrl-C ends it."
        read -r -t "$([ "$seconds" -gt 0 ] && echo "$seconds" || echo 86400)"
    fi
    until [ "$seconds" -gt 0 ] && [ $SECONDS -ge $end ]; do
        if [ -t 1 ] && can_watch; then
            shown --watch
        else
            if [ -t 1 ]; then printf '\033[H\033[2J'; cat "$work/commands"; fi
            echo "---- $(date +%T) xget --status, at the master"
            shown || echo "the master does not answer"
            ! declare -F more > /dev/null || more
            pause "$([ -t 1 ] && echo 1 || echo 4)"
        fi
    done
}

# A laboratory that shows `more` than the status has no use for --watch.
can_watch() { ! declare -F more > /dev/null && "$xget" --help | grep -q -e --watch; }

# shown [OPTION...]: the status, for as long as the laboratory has left at most. A trap waits for what runs in
# the foreground, so that this is not there.
shown() {
    local left=10
    [ $# -eq 0 ] || left=$([ "$seconds" -gt 0 ] && echo $((end - SECONDS + 1)) || echo 0)
    timeout --foreground "$left" nsenter "--net=/run/netns/$(ns 0)" \
        "$xget" --status "$@" -n "$(ip_of 0)" 2>&1 < /dev/null 9>&- &
    wait $!
}

pause() { sleep "$1" 9>&- & wait $!; }
