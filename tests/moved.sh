#!/bin/bash
# The master gets another address in the middle of a fetch: its name leads there from then on, and the
# node finds it.
. "$(dirname "$0")/lib.sh"
need ip:iproute2 nsenter:util-linux
need_root
need_xget

src=$work/src
mkdir "$src"
small_tree "$src"
random_file "$src/image" 24M
hosts=$work/hosts

net_up 1 || { skip "network namespaces" "a kernel with veth and bridges"; finish; }
echo "$(ip_of 0) head" > "$hosts"
master 0 "$src" --max-upload 1M || { fail "the master starts" "$(log master)"; finish; }
# shellcheck disable=SC2016
start n1 1 unshare -m sh -c 'mount --bind "$1" /etc/hosts && shift && exec "$@"' sh "$hosts" \
    "$xget" -n head -p $port -q -D 1 -r forever --retry-wait 1 --serve no . "$work/n1"
has_begun() { find "$work/n1" -name '.xget-part-*' | grep -q .; }
check "a fetch begins" wait_for 15 has_begun
sleep 2
check "and is not over yet" is_running n1

end KILL master
ip -n "$(ns 0)" addr del "$(ip_of 0)/24" dev eth0
ip -n "$(ns 0)" addr add 10.77.0.200/24 dev eth0
echo "10.77.0.200 head" > "$hosts"
master 0 "$src" || { fail "the master starts at another address" "$(log master)"; finish; }
exit_of n1 150
if [ $code -eq 0 ]; then pass "the node finds it there"; else
    fail "the node finds it there (exit code $code)" "$(log n1)" "$(log master)"; fi
check "and its files are right" same "$src" "$work/n1"
finish
