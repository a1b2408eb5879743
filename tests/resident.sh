#!/bin/bash
# The resident of the boot in the real root: no gap in its service across the switch, systemd's isolate
# and the hand-over; systemctl shows and stops it; its time ends when it should.
#
# A machine that is emulated on a busy host stands still now and then, with all that is in it. What its
# kernel answers meanwhile (ping) tells that from a service that is not there: see vm/probe.py.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
. "$(dirname "$0")/vm/dracut.sh"
need_machines dracut:dracut-core python3:python3-minimal /lib/systemd/systemd:systemd

# ---- the root: Debian's systemd, and an init without it

make_image() {
    local root=$work/root unit file
    busybox_tree "$root"
    mkdir -p "$root"/{sbin,run,sysroot,etc/systemd/system,etc/default,usr/bin,usr/lib/systemd/system,var/log,srv/boot} "$boot/images"
    ln -s usr/lib "$root/lib" && ln -s usr/lib64 "$root/lib64" && mkdir -p "$root/usr/lib64"
    for file in sh sleep grep sed tr cat ls cut kill; do ln -s busybox "$root/bin/$file"; done
    echo NAME=node > "$root/etc/os-release"
    printf 'root:x:0:0:root:/:/bin/sh\n' > "$root/etc/passwd"; printf 'root:x:0:\n' > "$root/etc/group"
    : > "$root/etc/machine-id"
    for file in "$(command -v systemctl)" "$(command -v journalctl)" /lib/systemd/systemd{,-journald,-shutdown,-executor}; do
        # There is an executor since systemd 255.
        [ -e "$file" ] || continue
        add_program "$root" "$file" "$file" || return 1
    done
    add_program "$root" "$xget" /usr/bin/xget || return 1
    for unit in sysinit basic multi-user local-fs local-fs-pre swap sockets timers paths slices shutdown umount \
        network network-pre initrd-switch-root; do
        cp "/lib/systemd/system/$unit.target" "$root/usr/lib/systemd/system/"
    done
    cp /lib/systemd/system/systemd-journald{.service,.socket,-dev-log.socket} "$root/usr/lib/systemd/system/"
    cp "$repo/initramfs/systemd"/*.{service,socket} "$root/usr/lib/systemd/system/"
    mkdir "$root/etc/systemd/system"/xget-master.{socket,service}.d
    printf '[Socket]\nListenStream=\nListenStream=20005\n' > "$root/etc/systemd/system/xget-master.socket.d/port.conf"
    printf '[Service]\nWatchdogSec=20\n' > "$root/etc/systemd/system/xget-master.service.d/watchdog.conf"
    printf '[Socket]\nListenStream=80\nFileDescriptorName=http\nService=xget-master.service\n' \
        > "$root/etc/systemd/system/xget-master-http.socket"
    echo 'XGET_OPTIONS=--metrics 81' > "$root/etc/default/xget-master"
    echo something > "$root/srv/boot/something"; chmod 600 "$root/srv/boot/something"
    printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' > "$root/etc/systemd/system/other.target"
    cat > "$root/etc/systemd/system/check.service" << 'END'
[Unit]
After=basic.target
IgnoreOnIsolate=yes
[Service]
ExecStart=/bin/sh /check.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
END
    mkdir "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../check.service "$root/etc/systemd/system/multi-user.target.wants/"
    ln -s /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    ln -s /lib/systemd/systemd "$root/sbin/init"
    cat > "$root/check.sh" << 'END'
say() { echo "ROOT $*"; }
state=/run/xget/state.json
pid_in_state() { sed 's/.*"pid":\([0-9]*\).*/\1/' $state; }
say "is up: $(tr '\0' ' ' < /proc/1/cmdline)"
grep -q 'check=stay' /proc/cmdline && while :; do sleep 1; done
sleep 3
say "boot is $(systemctl is-active xget-boot.service)"
systemctl status --no-pager xget-boot.service | sed 's/^/STATUS /'
if grep -q 'check=stop' /proc/cmdline; then
    systemctl stop xget-boot.service
    say "stopped: $(systemctl is-active xget-boot.service), $(ls $state 2>&1)"
    systemctl start xget.service && say "nothing to take over: $(systemctl is-active xget.service)"
    systemctl start xget-master.socket xget-master-http.socket
    say "socket is $(systemctl is-active xget-master.socket), master $(systemctl is-active xget-master.service)"
    xget --status -n 127.0.0.1:20005 > /dev/null && say "who asks is answered"
    say "master is $(systemctl is-active xget-master.service): $(systemctl show -p StatusText xget-master.service)"
    systemctl reload xget-master.service; sleep 1
    say "reloaded: $(journalctl -q --no-pager -u xget-master.service -p notice | grep 'rescan finished')"
    systemctl status --no-pager xget-master.service | sed 's/^/STATUS /'
    say "over HTTP there is $(busybox wget -q -O - http://127.0.0.1/something)," \
        "and at a port below 1024 $(busybox wget -q -O - http://127.0.0.1:81/metrics | grep -c '^xget_nodes')"
    restarts() { systemctl show --value -p NRestarts xget-master.service; }
    before=$(restarts)
    kill -STOP "$(systemctl show --value -p MainPID xget-master.service)"
    for i in $(busybox seq 60); do [ "$(restarts)" = "$before" ] || break; sleep 1; done
    xget --status -n 127.0.0.1:20005 > /dev/null && say "after it hung $before $(restarts) it answers"
else
    systemctl isolate other.target; sleep 3
    say "isolated: boot is $(systemctl is-active xget-boot.service)"
    say "state $(cat $state)"
    systemctl start xget.service
    for i in 1 2 3 4 5 6 7 8 9 10; do systemctl -q is-active xget-boot.service || break; sleep 1; done
    say "handed over: boot is $(systemctl is-active xget-boot.service)," \
        "xget is $(systemctl is-active xget.service)," \
        "$(systemctl show -p MainPID xget.service) pid=$(pid_in_state)"
    systemctl status --no-pager xget.service | sed 's/^/STATUS /'
    sleep 3
fi
say "is done"
while :; do sleep 1; done
END
    cat > "$root/sbin/plain-init" << 'END'
#!/bin/busybox sh
export PATH=/bin:/usr/bin
[ -e /proc/1 ] || busybox mount -t proc proc /proc
state=/run/xget/state.json
resident() { grep -l '^@xget' /proc/[0-9]*/cmdline 2> /dev/null | cut -d / -f 3; }
echo "ROOT is up: resident $(resident)"
if grep -q 'check=time' /proc/cmdline; then
    while [ -e $state ]; do sleep 1; done; sleep 1
    echo "ROOT time is over: resident $(resident)"
elif grep -q 'check=no' /proc/cmdline; then
    echo "ROOT serves nobody: resident $(resident), $(ls $state 2>&1)"
else
    sleep 3
    old=$(resident)
    /usr/bin/xget --take-over & new=$!
    while [ -e "/proc/$old" ]; do sleep 1; done
    echo "ROOT handed over: $(sed 's/.*"pid":\([0-9]*\).*/\1/' $state) is $new"
    sleep 3
fi
echo "ROOT is done"
while :; do sleep 1; done
END
    chmod 755 "$root/sbin/plain-init"
    mksquashfs "$root" "$boot/$image" -noappend -quiet -no-progress -all-root
}

# add_program DIR PROGRAM PATH: in DIR, with the libraries that it is linked with
add_program() {
    local library
    mkdir -p "$1$(dirname "$3")" && cp -L "$2" "$1$3" || return 1
    ldd "$2" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$1$(dirname "$library")" && cp -nL "$library" "$1$library"
    done
    return 0
}

# ---- the machines

own="base bash udev-rules kernel-modules fs-lib xget"
check "dracut makes an initramfs without systemd" dracut_initramfs plain.img "$own"
check "and one with systemd" dracut_initramfs systemd.img "$own $dracut_systemd"
boot_server || finish

understands() { [ -z "$(systemd-analyze verify --man=no "--root=$work/root" "$@" 2>&1 | tee /dev/stderr)" ]; }
check "systemd has nothing to say against the units" understands xget.service xget-master.service xget-master.socket
check "and finds them little exposed" \
    systemd-analyze security --no-pager --offline=yes --threshold=20 "$repo/initramfs/systemd"/*.service

# machine NAME N INITRAMFS WORDS
machine() {
    vm_on_switch "$1" "$2" -m 512 -no-reboot -kernel "$vmlinuz" -initrd "$work/$3.img" \
        -append "console=ttyS0 panic=-1 quiet rd.shell=0 rd.emergency=poweroff root=xget:///$image $4"
}

address_is_known() { [ -n "$(address_of "$1")" ]; }

# probe NAME N: from the first answer on
probe() {
    wait_for 120 address_is_known "$2" || { fail "$1 has an address" "$(console "$1")"; return; }
    start "probe-$1" 0 python3 "$repo/tests/vm/probe.py" "$(address_of "$2")" $port "$image" "$boot/$image"
}

# has_no_gap NAME: of more than a second in which its kernel answered
has_no_gap() {
    local gap standing
    end TERM "probe-$1"
    read -r gap standing < <(python3 "$repo/tests/vm/probe.py" --longest-gap "$work/probe-$1.out")
    note "$1: longest time without service $gap s, in which its kernel gave no answer for $standing s"
    check "$1: its service has no gap longer than a second" \
        awk -v gap="${gap:-99}" -v standing="${standing:-0}" 'BEGIN { exit !(gap - standing < 1) }'
}

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
has_no_gap systemd
has_no_gap plain
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
prints stop "and has the master started, which is ready" '^ROOT master is active: StatusText=serving 1 files'
prints stop "a reload has its tree looked at, and the journal has that" '^ROOT reloaded: .*nothing has changed'
check "stop: and serves what only root may read" is_served_at 3 20005
prints stop "xget-master.service serves HTTP on a socket of that name, and metrics on a port below 1024" \
    '^ROOT over HTTP there is something, and at a port below 1024 [1-9]'
prints stop "a master that hangs is started again, and its port stays open" '^ROOT after it hung 0 1 it answers'
prints time "rd.xget.serve=$serve_s serves in the real root" '^ROOT is up: resident [0-9]+'
prints time "and ends after that" '^ROOT time is over: resident .?$'
prints no "rd.xget.serve=no leaves nobody behind" '^ROOT serves nobody: resident , .*No such file'
finish
