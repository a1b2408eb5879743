# shellcheck shell=bash
# A limit on what the master sends, and one who reads a large file all the time: nobody is kept waiting for long, and
# nobody says that the master does not send.

net_up 8 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
rm -rf "$work/src" && mkdir "$work/src"
random_file "$work/src/image" 12M
master 0 "$work/src" --max-upload 3M || { fail "the master starts" "$(log master)"; finish; }
attack file 1 90
names=()
for ((n = 3; n <= 8; n++)); do
    rm -rf "$work/copy-$n"
    node "honest-$n" $n "$home" "$work/copy-$n"
    names+=("honest-$n")
done
if all_whole 80 "${names[@]}"; then pass "six nodes are served by a master that is limited and busy"; else
    fail "six nodes are served by a master that is limited and busy" "$(log honest-3)" "$(log master)"; fi
note "the last one: $(slowest "${names[@]}") s"
check "none of them says that the master does not send" \
    sh -c "! grep -l 'does not send' $(for name in "${names[@]}"; do printf "'%s' " "$(log "$name")"; done)"
attack_over
for name in "${names[@]}"; do ! is_running "$name" || end TERM "$name"; unset "pid[$name]"; done
end TERM master; unset 'pid[master]'
net_down
