# shellcheck shell=bash
# A thousand connections of one host that ask for work, for turns, for memory, for places; and one honest node.

net_up 17 200 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
rm -rf "$work/src" && mkdir "$work/src"
random_file "$work/src/image" 48M
small_tree "$work/src"
bytes=$((48 << 20))

connections=${CONNECTIONS:-1000}
fetchers=${FETCHERS:-1}

# beside KIND [PORT [OPTION...]]: an honest fetch, while the attack goes on
beside() {
    local kind=$1 to=${2:-$port}; shift; [ $# -eq 0 ] || shift
    master 0 "$work/src" --http 8080 "$@" || { fail "the master starts" "$(log master)"; return; }
    fetch_by "$fetchers" || fail "without attackers the nodes are served" "$(log honest-2)"
    local alone=$took
    attack "$kind" "$connections" 100 "$to" || return
    probe 17
    local before; before=$(cpu master)
    if fetch_by "$fetchers" && same "$work/src" "$work/copy-2"; then
        pass "$fetchers beside $connections connections of $kind"
        note "$(awk -v a="$alone" -v b="$took" -v c="$before" -v d="$(cpu master)" -v m="$(memory master)" \
            'BEGIN { printf "%.2f s without, %.2f s beside: %.2f times; the master used %.2f s, at most %d MiB", a, b, b / a, d - c, m }')"
    else
        fail "$fetchers beside $connections connections of $kind" "$(log honest-2)" "$(log master)"
    fi
    probe_over
    note "$(status 17 | head -n 1 | cut -c 70-)"
    attack_over
    end TERM master; unset 'pid[master]'
}

for kind in ${KINDS:-want held image readers file status texts manifest joins silent}; do beside "$kind"; done
for kind in ${HTTP_KINDS:-pages downloads}; do beside "$kind" 8080; done
net_down
