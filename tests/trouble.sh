#!/bin/bash
# Machines whose boot meets trouble: a link, a DHCP server and a master that come late; what cannot be
# fetched, does not fit, or never comes. Each goes on as soon as it can, or ends with a message that
# says what is wrong, and a shell.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
need_machines minisign:minisign

memory=256                          # of each machine, in MiB
limit=90                            # seconds for one thing to be said; the processors may be busy

mkdir -p "$work/root"
random_file "$work/root/payload" $((24 << 20))
make_image > "$work/image.log" 2>&1 || { fail "an image is made" "$work/image.log"; finish; }
truncate -s 400M "$boot/images/large.squashfs"
# Signed by one key, while a machine will trust another.
for key in trusted other; do minisign -G -W -p "$work/$key.pub" -s "$work/$key.sec"; done > "$work/keys.log"
signature=$work/manifest.minisig
"$xget" --manifest -q --cache none "$boot" > "$work/manifest" &&
    minisign -S -s "$work/other.sec" -m "$work/manifest" -x "$signature" > "$work/sign.log" ||
    { fail "what is served is signed" "$work/sign.log"; finish; }
check "an initramfs with nothing but xget and modules is made" alone alone.img
check "and one with a shell" alone shell.img --busybox
net_up 0 || { fail "a switch and a boot server are made"; finish; }

# troubled NAME N WORDS [OPTION...]: machine N boots, with a shell
troubled() { initrd=shell.img boots_alone "$1" "$2" $memory "${@:3}"; }
# given N: what gives machine N its address, without DHCP
given() { echo "ip=$(ip_of "$1")::$(ip_of 0):255.255.255.0::eth0:none"; }
# says NAME REGEX: soon, on its console
says() {
    if vm_prints $limit "$1" "$said$2"; then pass "$1: $(vm_lines "$1" | grep -m 1 -E "$said$2")"; else
        fail "$1 does not say: $2" "$(console "$1")" "$(log "$1")"
    fi
}
ends_in_shell() { check "$1: and there is a shell" vm_prints $limit "$1" '^BusyBox v'; }

# ---- nobody is there yet

mkfifo "$work/monitor.in" "$work/monitor.out"
monitor() { echo "$*" > "$work/monitor.in"; }

troubled late-link 1 "root=xget:///$image" -S \
    -chardev "pipe,id=monitor,path=$work/monitor" -mon monitor
monitor set_link n0 off
monitor cont
troubled late-dhcp 2 "root=xget:///$image"
troubled late-master 3 "root=xget://$(ip_of 0)/$image $(given 3)"
troubled no-dhcp 4 "root=xget:///$image rd.xget.timeout=8"
troubled no-master 5 "root=xget://$(ip_of 0)/$image $(given 5) rd.xget.timeout=8"
troubled no-machine 6 "root=xget://$(ip_of 250)/$image $(given 6) rd.xget.timeout=8"
keyboard "$work/keys"
keys=$work/keys troubled bad-word 7 "root=xget:///$image rd.xget.timeout=soon"
boots_alone no-shell 8 $memory "root=xget:///$image rd.xget.server=[::1"

says bad-word 'kernel command line: rd\.xget\.timeout=soon: expected a number of seconds'
ends_in_shell bad-word
type_in "$work/keys" 'echo I sleep; sleep 1000\n'
vm_prints $limit bad-word '^I sleep'
type_in "$work/keys" '\003echo awake\n'
check "bad-word: what runs in the shell can be interrupted" vm_prints $limit bad-word '^awake'
says no-shell 'kernel command line: rd\.xget\.server=.*::1.*\]'
says no-shell 'the machine restarts in 60 s'
end TERM bad-word no-shell
says late-link 'waiting for carrier on eth0'
says late-dhcp 'waiting for a DHCP offer on eth0 \(asked (once|[0-9]+ times)\)'
says late-master "cannot connect to $(ip_of 0): Connection refused; retrying in [0-9.]+ s"
says no-dhcp 'cannot get an address: no DHCP offer on eth0 \(asked [0-9]+ times\)'
ends_in_shell no-dhcp
says no-master "cannot connect to $(ip_of 0): Connection refused"
ends_in_shell no-master
says no-machine "cannot connect to $(ip_of 250): (timed out|connection timed out|No route to host)"
ends_in_shell no-machine
end TERM no-dhcp no-master no-machine

# ---- they come

monitor set_link n0 on
dnsmasq_on_switch || finish
says late-link 'eth0 has the address 10\.77\.0\.[0-9]+, from the DHCP server 10\.77\.0\.1'
says late-dhcp 'eth0 has the address 10\.77\.0\.[0-9]+, from the DHCP server 10\.77\.0\.1'
master 0 "$boot" --signature "$signature" --key "$work/other.pub" || { fail "the master starts" "$(log master)"; finish; }
for name in late-link late-dhcp late-master; do is_up $name; done
end TERM late-link late-dhcp late-master

# ---- what cannot be had

troubled not-served 9 "root=xget:///images/other.squashfs"
troubled too-large 10 "root=xget:///images/large.squashfs"
zeros=$(printf '0%.0s' {1..64})
troubled wrong-hash 12 "root=xget:///$image rd.xget.hash=$zeros"
troubled wrong-key 13 "root=xget:///$image rd.xget.key=$(tail -n 1 "$work/trusted.pub")"
says not-served "$(ip_of 0) does not serve images/other\.squashfs"
ends_in_shell not-served
says too-large 'not enough space in /run/xget/files: need 400\.0 MiB, have [0-9.]+ MiB'
ends_in_shell too-large
says wrong-hash "the manifest from $(ip_of 0) is not trusted: its generation is [0-9a-f]{64}, expected $zeros"
ends_in_shell wrong-hash
says wrong-key "the manifest from $(ip_of 0) is not trusted: it is signed with key [0-9A-F]{16}, expected key"
ends_in_shell wrong-key
end TERM not-served too-large wrong-hash wrong-key master

# A master that goes in the middle, for good.
master 0 "$boot" --max-upload 1M || { fail "a slow master starts" "$(log master)"; finish; }
troubled lost-master 11 "root=xget:///$image rd.xget.timeout=20"
says lost-master '[0-9.]+ % of [0-9.]+ MiB'
end TERM master
says lost-master "cannot connect to $(ip_of 0): timed out; .* of .* are kept for the next attempt"
ends_in_shell lost-master
finish
