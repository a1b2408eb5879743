#!/bin/bash
# Attackers of every kind, each on one host with many connections, and honest nodes beside them: that these are served
# is checked; how much longer they take is noted. Each case is a file in attacks/.
#
#   tests/attacks.sh [CASE...]      only these
. "$(dirname "$0")/lib.sh"
need_root
need ip:iproute2 tc:iproute2 nsenter:util-linux python3:python3 curl:curl
need_xget

attacks=$repo/tests/attacks
home=$(ip_of 0)

# attack KIND CONNECTIONS SECONDS [PORT]: on host 1, in the background; returns once all connections are made
attack() {
    start attacker 1 python3 -u "$attacks/attacker.py" "$1" "$home" "${4:-$port}" "$2" "$3"
    wait_for 60 grep -q ready "$work/attacker.out" || { fail "the attacker ($1) is there" "$(log attacker)"; return 1; }
}
attack_over() { ! is_running attacker || end TERM attacker; unset 'pid[attacker]'; }

# probe HOST: from there the master is asked for next to nothing, again and again, until probe_over, which notes how
# long an answer took at most
probe() {
    start probe "$1" python3 -u "$attacks/probe.py" "$home" "$port" "${pid[master]}"
    wait_for 30 grep -q ready "$work/probe.out" || fail "the master answers" "$(log probe)"
}
probe_over() {
    end TERM probe; unset 'pid[probe]'
    local used took; read -r used took < <(tail -n 1 "$work/probe.out")
    note "longest time to an answer: $used ms of the master's processor, $took ms"
}

# fetch_by N: nodes on hosts 2 to N + 1 fetch everything; sets $took, the seconds of the last one
fetch_by() {
    local n names=() name
    for ((n = 2; n <= $1 + 1; n++)); do
        rm -rf "$work/copy-$n"
        node "honest-$n" "$n" "$home" "$work/copy-$n"
        names+=("honest-$n")
    done
    all_whole 120 "${names[@]}" || { took=; for name in "${names[@]}"; do end KILL "$name"; done; return 1; }
    took=$(slowest "${names[@]}")
    for name in "${names[@]}"; do end TERM "$name"; unset "pid[$name]"; done
}

# cpu NAME: processor seconds that it has used
cpu() { awk '{ print ($14 + $15) / 100 }' "/proc/${pid[$1]}/stat"; }

# memory NAME: the most memory that it has had, in MiB
memory() { echo $(($(peak "$1") / 1024)); }

cases=("$@")
[ ${#cases[@]} -gt 0 ] || mapfile -t cases < <(find "$attacks" -name "*.sh" -printf "%f\n" | sed "s/\.sh$//" | sort)
for case in "${cases[@]}"; do
    # What an earlier case has left is not in its way.
    find "$work" -mindepth 1 -delete
    # shellcheck source=/dev/null
    . "$attacks/$case.sh"
done
finish
