# shellcheck shell=bash
# An image of 70,000 files of one byte, read again and again: others are answered meanwhile.

net_up 2 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
rm -rf "$work/src" "$work/copy" && mkdir "$work/src"
python3 - "$work/src" <<'P'
import os, sys
for i in range(70):
    os.mkdir(f"{sys.argv[1]}/{i}")
    for k in range(1000):
        with open(f"{sys.argv[1]}/{i}/{k}", "w") as file:
            file.write("x")
P
master 0 "$work/src" || { fail "the master starts" "$(log master)"; finish; }
attack readers 16 100
probe 2
began=$(now)
check "beside readers of 70,000 files status is answered" status 2
check "and a file" timeout 60 nsenter "--net=/run/netns/$(ns 2)" "$xget" -q -n "$home" --serve no 7/7 "$work/copy"
note "$(awk -v a="$began" -v b="$(now)" 'BEGIN { printf "both took %.1f s", b - a }')"
probe_over
attack_over
end TERM master; unset 'pid[master]'
net_down
