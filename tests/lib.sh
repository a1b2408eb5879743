# shellcheck shell=bash
# Helpers for the system tests, which are bash scripts: . "$(dirname "$0")/lib.sh"
#
# A test says `need`, then does things and judges them with `check`, `pass` and `fail`, one line
# each, and ends with `finish`. Processes started with `start` are known by name and ended at exit;
# so are the network namespaces of `net_up` and the work directory.
#
# What is shared with the laboratories, as processes and hosts in namespaces, is in ../lab/hosts.sh.
#
# The last line of every script is `NAME: N passed, N failed, N skipped`; exit codes are 0, 1 for
# failures and 77 if nothing at all could be tested. XGET names another program to test; XGET_PATIENCE=3
# waits three times as long for what is to happen, on a machine that has much else to do.

set -u -o pipefail
export LC_ALL=C
. "$(dirname "${BASH_SOURCE[0]}")/../lab/hosts.sh"

test_name=$(basename "$0" .sh)
passed=0 failed=0 skipped=0

# ---- judging

pass() { passed=$((passed + 1)); echo "PASS  $*"; }

# fail TEXT [LOG...]: with the ends of those logs
fail() {
    failed=$((failed + 1)); echo "FAIL  $1"; shift
    local log
    for log; do echo "      --- $log"; tail -n 15 "$log" | cut -c 1-300 | sed 's/^/      | /'; done
}

# in_full: is this more than the short run of `make test`?
in_full() { [ "${XGET_QUICK:-}" != 1 ]; }

# skip TEXT HOW: one thing that cannot be tested here, and how to get it
skip() { skipped=$((skipped + 1)); echo "SKIP  $1"; echo "      to run it: $2"; }

note() { echo "      $*"; }

# check TEXT COMMAND...: the command decides
check() {
    local text=$1; shift
    if "$@" > "$work/check.out" 2>&1; then pass "$text"; else fail "$text" "$work/check.out"; fi
}

finish() {
    trap - EXIT
    clean_up
    echo "$test_name: $passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ] || exit 1
    [ $((passed + skipped)) -eq 0 ] || [ $passed -gt 0 ] || exit 77
    exit 0
}

# What the namespace of a host of net_up is called.
ns() { echo "xt$$-$1"; }

# wakeups NAME: how often its threads have gone to sleep and come back so far
wakeups() { awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum }' /proc/"${pid[$1]}"/task/*/status; }

# peak NAME: KiB of memory that it had at most
peak() { sed -n 's/^VmHWM:\s*\([0-9]*\) kB/\1/p' "/proc/${pid[$1]}/status"; }

# options_of_help: as they begin a line, the short one and the long one a line each
options_of_help() {
    "$xget" --help | sed -nE 's/^  (-[a-zA-Z], |    )(--[a-z0-9-]+).*/\1\n\2/p' | grep -oE -e '-[^, ]+' | sort
}

# ---- trees

# small_tree DIR: a bit of everything that can be served
small_tree() {
    mkdir -p "$1/etc/deep/er" "$1/empty"
    local i
    for i in $(seq 60); do echo "file $i" > "$1/etc/file-$i"; done
    head -c 70000 /dev/urandom > "$1/etc/deep/er/odd"
    : > "$1/etc/nothing"
    echo x > "$1/etc/a name with spaces"
    ln -s ../etc/file-1 "$1/etc/deep/link"
    ln -s /nowhere "$1/dangling"
    chmod 600 "$1/etc/file-1"; chmod 755 "$1/etc/file-2"; chmod 750 "$1/etc/deep"
    touch -d '2001-02-03 04:05:06.789' "$1/etc/file-3" "$1/etc/deep/er"
}

# describe DIR: contents, and all attributes that xget keeps
describe() (
    cd "$1" || exit 1
    find . -mindepth 1 -printf '%P %y %m %U:%G %T@ %l\n' | sort
    find . -type f -exec sha256sum {} + | sort -k 2
)

# same TREE COPY: is the copy right in every respect?
same() { diff <(describe "$1") <(describe "$2"); }

# ---- the end

clean_up() {
    # All in the background, not only those with a name: it would be waited for.
    { jobs -p | xargs -r kill -KILL; wait; } 2> /dev/null
    net_down
    grep -o " ${work}[^ ]* " /proc/mounts | sort -r | while read -r mount; do umount "$mount"; done
    rm -rf "$work"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/xget-$test_name.XXXXXX") || exit 1
trap 'fail "$test_name was cut short"; finish' EXIT
trap 'exit 1' INT TERM HUP
