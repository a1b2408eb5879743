#!/bin/bash
# The resident of the boot in the real root: it serves across the switch, systemd's isolate and the hand-over;
# systemctl shows and stops it; its time ends when it should. (bench/hand-over measures for how long nobody serves.)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
. "$(dirname "$0")/vm/dracut.sh"
. "$(dirname "$0")/vm/resident.sh"
need_machines dracut:dracut-core python3:python3-minimal /lib/systemd/systemd:systemd

# ---- the machines

check "dracut makes an initramfs without systemd" dracut_initramfs plain.img "$own"
check "and one with systemd" dracut_initramfs systemd.img "$own $dracut_systemd"
boot_server || finish

understands() { [ -z "$(systemd-analyze verify --man=no "--root=$work/root" "$@" 2>&1 | tee /dev/stderr)" ]; }
check "systemd has nothing to say against the units" understands xget.service xget-master.service xget-master.socket
check "and finds them little exposed" \
    systemd-analyze security --no-pager --offline=yes --threshold=20 "$repo/initramfs/systemd"/*.service

# prints NAME TEXT REGEX
prints() {
    if vm_prints 120 "$1" "$3"; then pass "$1: $2"; else fail "$1: $2" "$(console "$1")"; fi
}

is_served_at() { nsenter "--net=/run/netns/$(ns 0)" timeout 10 "$xget" --status -n "$(address_of "$1"):$2"; }
is_not_served_at() { ! is_served_at "$@"; }

machine systemd 1 systemd ""
machine plain 2 plain "init=/sbin/plain-init"
probe systemd 1
probe plain 2

vm_prints 240 systemd '^ROOT is done'
prints systemd "systemctl shows the resident as the unit xget-boot.service" '^STATUS .*Active: active \(running\)'
prints systemd "an isolate leaves it alone" '^ROOT isolated: boot is active'
prints systemd "its state is JSON" '^ROOT state \{"version":1,"pid":[0-9]+,.*"served":\[\{"path":"images/node.squashfs"'
prints systemd "xget.service takes over, and the unit of the boot ends" \
    '^ROOT handed over: boot is inactive, xget is active, MainPID=([0-9]+) pid=\1'
prints plain "without systemd there is a resident" '^ROOT is up: resident [0-9]+'
prints plain "xget --take-over takes over from it" '^ROOT handed over: ([0-9]+) is \1'
prints plain "the test of it ends" '^ROOT is done'
for name in systemd plain; do
    check "$name: it has served before, and serves afterwards" gap $name
    note "$name: longest time without service, and of that without its kernel: $(cat "$work/check.out") s"
done
end TERM master
check "systemd: with the master gone it serves its image" fetches_from 1
check "plain: with the master gone it serves its image" fetches_from 2
end KILL systemd plain
master 0 "$boot"

# Long enough for the machine to be in its real root.
serve_s=$((40 * ${XGET_PATIENCE:-1}))
machine stop 3 systemd "check=stop"
machine time 4 plain "init=/sbin/plain-init check=time rd.xget.serve=$serve_s"
machine no 5 plain "init=/sbin/plain-init check=no rd.xget.serve=no"
vm_prints 240 stop '^ROOT is done'
prints stop "systemctl stops the resident, and its state goes" '^ROOT stopped: inactive, .*No such file'
check "stop: nobody serves there any more" is_not_served_at 3 $port
prints stop "with nothing to take over xget.service is not failed" '^ROOT nothing to take over: inactive'
prints stop "xget-master.socket waits for who asks" '^ROOT socket is active, master inactive'
prints stop "and has the master started, which is ready" '^ROOT master is active: StatusText=serving 1 file'
prints stop "a reload has its tree looked at, and the journal has that" '^ROOT reloaded: .*nothing has changed'
check "stop: and serves what only root may read" is_served_at 3 20005
prints stop "xget-master.service serves HTTP on a socket of that name, and metrics on a port below 1024" \
    '^ROOT over HTTP there is something, and at a port below 1024 [1-9]'
prints stop "a master that hangs is started again, and its port stays open" '^ROOT after it hung 0 1 it answers'
prints time "rd.xget.serve=$serve_s serves in the real root" '^ROOT is up: resident [0-9]+'
prints time "and ends after that" '^ROOT time is over: resident .?$'
prints no "rd.xget.serve=no leaves nobody behind" '^ROOT serves nobody: resident , .*No such file'
finish
