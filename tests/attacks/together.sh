# shellcheck shell=bash
# All kinds at once beside a thousand nodes: what the master holds in memory, and whether it answers.

net_up 2 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
rm -rf "$work/src" "$work/copy" && mkdir "$work/src"
random_file "$work/src/image" 48M
small_tree "$work/src"
master 0 "$work/src" --http 8080 || { fail "the master starts" "$(log master)"; finish; }
chunks=$(status 2 | grep -o 'held=[0-9]*' | head -n 1 | cut -d = -f 2)
start swarm 0 python3 "$repo/tests/many_nodes.py" 127.0.0.1 $port 1000 "$chunks" swarm
wait_for 120 grep -q wait "$work/swarm.out" || fail "a thousand nodes join" "$(log swarm)"

kinds=(want held image readers file status texts manifest joins silent pages downloads)
for kind in "${kinds[@]}"; do
    to=$port; case $kind in pages | downloads) to=8080 ;; esac
    start "attacker-$kind" 1 python3 -u "$attacks/attacker.py" "$kind" "$home" "$to" 85 40
done
for kind in "${kinds[@]}"; do wait_for 60 grep -q ready "$work/attacker-$kind.out"; done
probe 2
node honest 2 "$home" "$work/copy"
if all_whole 120 honest && same "$work/src" "$work/copy"; then
    pass "beside ${#kinds[@]} kinds of attack and a thousand nodes one more is served"
else
    fail "beside ${#kinds[@]} kinds of attack and a thousand nodes one more is served" "$(log honest)" "$(log master)"
fi
note "$(summary honest)"
check "status is answered" status 2
probe_over
check "the master holds at most 256 MiB: $(memory master)" [ "$(memory master)" -le 256 ]
for kind in "${kinds[@]}"; do ! is_running "attacker-$kind" || end TERM "attacker-$kind"; unset "pid[attacker-$kind]"; done
end TERM swarm master; unset 'pid[swarm]' 'pid[master]' 'pid[honest]'
net_down
