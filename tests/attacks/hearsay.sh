# shellcheck shell=bash
# Nodes that name addresses at which there is no node: others find the one whole node all the same, and a third host is
# neither called again and again nor read. Sourced by ../attacks.sh.

# start_misleading NAME HOST ADDRESS...: a node on that host that names these, once it has joined
start_misleading() {
    local name=$1 host=$2; shift 2
    start "$name" "$host" python3 "$attacks/hearsay_node.py" "$home" "$port" "$(ip_of "$host")" "$@"
    wait_for 20 grep -q ready "$work/$name.out" || fail "a node that misleads others joins" "$(log "$name")"
}

most_calls=3                                # MAX_UNANSWERED_CALLS in src/limits.rs

# hearsay_source SIZE: $src, four files of this size
hearsay_source() {
    local i
    src=$work/hearsay-src
    mkdir -p "$src"
    for i in 1 2 3 4; do random_file "$src/image-$i" "$1"; done
}

# feeds_others HOST: has the node there sent anything?
feeds_others() { [ "$(status "$1" "$(ip_of "$1"):$port" | field sent_bytes)" -gt 0 ]; }

# ---- 256 dead addresses, half of them of hosts that are not there

eclipse() {
    local began told
    net_up 4 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; return; }
    hearsay_source 16M
    master 0 "$src" --max-upload 1M || { fail "the master starts" "$(log master)"; return; }
    # It has all of it, and comes when the late node has heard of the dead ones.
    cp -a "$src" "$work/whole"
    start_misleading misleading 3 "$(ip_of 99)-227!$port" "$(ip_of 4)!30000-30127"
    node late 2 "$home" "$work/late" --serve no
    sleep 4
    node whole 1 "$home" "$work/whole" --serve forever --max-upload 2M
    wait_for 20 is_whole whole || fail "the whole node starts" "$(log whole)"
    # The node that names them is told on, once by each that it has misled.
    told="reports: $(ip_of 3):.* hosts where no xget node answers"
    wait_for 20 grep -q "$told" "$(log master)"
    # The master names the whole node when it is asked next, which may take some seconds.
    wait_for 20 feeds_others 1
    check "the late node is not whole yet" eval '! is_whole late'
    end KILL master
    began=$SECONDS
    if all_whole 90 late; then
        pass "a node finds the one whole node among 256 dead addresses when the master has died"
    else
        fail "a node finds the one whole node among 256 dead addresses when the master has died" "$(log late)"
    fi
    note "$((SECONDS - began)) s after the master died; $(summary late)"
    exit_of late 10
    check "its copy is right" same "$src" "$work/late"
    check "the master's log names the misleading node, once" [ "$(grep -c "$told" "$(log master)")" = 1 ]
    end KILL whole misleading; unset 'pid[master]' 'pid[whole]' 'pid[misleading]'
    net_down
}

# ---- the services of a third host

reflect() {
    local victim honest i hits
    net_up 5 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; return; }
    hearsay_source 8M
    victim=$(ip_of 4)
    start third 4 python3 "$attacks/third_party.py" "$victim" 22022 22080 22025
    wait_for 20 grep -q ready "$work/third.out" || fail "a third host serves" "$(log third)"
    master 0 "$src" --max-upload 1M || { fail "the master starts" "$(log master)"; return; }
    start_misleading reflecting 3 "$victim!22022" "$victim!22080" "$victim!22025" "$victim!22099" "$victim!22" \
        "127.0.0.1!22022" "0.0.0.0!22022"
    honest=(1 2 5)
    for i in "${honest[@]}"; do node "honest$i" "$i" "$home" "$work/honest$i"; done
    wait_for 30 grep -q 22022 "$work/third.out"
    check "the nodes have heard of the third host" grep -q 22022 "$work/third.out"
    # Longer than a silent service is waited for twice.
    if all_whole 90 honest1 honest2 honest5; then pass "3 nodes finish beside a node that names a third host"; else
        fail "3 nodes finish beside a node that names a third host" "$(log honest2)" "$(log honest5)" "$(log master)"; fi
    status 0 > "$work/status"
    hits=$(grep '^22' "$work/third.out" | sort | uniq -c | sort -n | tail -n 1)
    note "most connections to one of its ports by one node: $hits"
    check "no node has called one of its ports more than $most_calls times" \
        [ "$(echo "$hits" | awk '{ print $1 }')" -le $most_calls ]
    # Each with the number that its first bytes are as the size of a message.
    check "what it answers is in no log and no status" \
        sh -c "! grep -E 'SSH-|OpenSSH|400 Bad|759714643|1347703880' '$work/status' '$work'/master.log '$work'/honest?.log"
    check "nor in the status that the master shows as JSON" \
        sh -c "! timeout 10 nsenter --net=/run/netns/$(ns 0) '$xget' --status --json -n $home:$port | grep -E '$victim.*(SSH|invalid)'"
    for i in "${honest[@]}"; do exit_of "honest$i" 10; done
    check "a copy is right" same "$src" "$work/honest1"
    end KILL master reflecting third; unset 'pid[master]' 'pid[reflecting]' 'pid[third]'
    net_down
}

# ---- only the networks of --allow

only_allowed() {
    net_up 5 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; return; }
    hearsay_source 8M
    start third 4 python3 "$attacks/third_party.py" "$(ip_of 4)" 22022 22080 22025
    wait_for 20 grep -q ready "$work/third.out" || fail "a third host serves" "$(log third)"
    master 0 "$src" --max-upload 4M || { fail "the master starts" "$(log master)"; return; }
    start_misleading reflecting 3 "$(ip_of 4)!22022"
    node allowed 1 "$home" "$work/allowed" --serve no --allow "$(ip_of 3)" --allow "$(ip_of 2)"
    if all_whole 60 allowed; then pass "a node with --allow finishes"; else
        fail "a node with --allow finishes" "$(log allowed)"; fi
    exit_of allowed 10
    check "it has not called a host that --allow leaves out" sh -c "! grep '^22' '$work/third.out'"
    end KILL master reflecting third; unset 'pid[master]' 'pid[reflecting]' 'pid[third]'
    net_down
}

eclipse
reflect
only_allowed
