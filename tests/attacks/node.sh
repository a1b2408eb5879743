# shellcheck shell=bash
# A node that fetches is flooded itself.

net_up 2 100 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
rm -rf "$work/src" && mkdir "$work/src"
random_file "$work/src/image" 64M
master 0 "$work/src" || { fail "the master starts" "$(log master)"; finish; }
fetch_by 1 || fail "without attackers the node is served" "$(log honest-2)"
alone=$took
for kind in want readers; do
    rm -rf "$work/copy-2"
    node honest-2 2 "$home" "$work/copy-2"
    wait_for 20 sh -c "ls -A '$work/copy-2' | grep -q xget-part" || fail "the node begins" "$(log honest-2)"
    start attacker 1 python3 -u "$attacks/attacker.py" "$kind" "$(ip_of 2)" $port 100 60
    if all_whole 60 honest-2 && same "$work/src" "$work/copy-2"; then
        pass "a node that is flooded with $kind finishes"
    else
        fail "a node that is flooded with $kind finishes" "$(log honest-2)" "$(log attacker)"
    fi
    note "$alone s without, $(slowest honest-2) s beside"
    end TERM honest-2; unset 'pid[honest-2]'
    attack_over
done
end TERM master; unset 'pid[master]'
net_down
