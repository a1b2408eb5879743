# shellcheck shell=bash
# Machines with Debian's systemd, and without, in whose real roots the resident of the boot goes on serving, and
# which are watched from outside; after dracut.sh beside this.

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

own="base bash udev-rules xget"

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

# gap NAME: the longest time without service in seconds, and for how much of that the machine's kernel was silent
gap() {
    end TERM "probe-$1"
    python3 "$repo/tests/vm/probe.py" --longest-gap "$work/probe-$1.out"
}
