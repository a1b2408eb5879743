#!/bin/bash
# Every shell script of the project: shellcheck, in its own dialect. What runs inside an initramfs is run as
# well, in dash, bash and busybox ash, in a root of its own where stubs write down what is called.
. "$(dirname "$0")/lib.sh"
need shellcheck:shellcheck dash:dash busybox:busybox-static chroot:coreutils
need_root

# ---- shellcheck

# The dialect stands in a script's first line, or in a directive; the tests' own exceptions in tests/.shellcheckrc.
scripts() {
    find "$repo" \( -name target -o -name .git \) -prune -o -type f -print | while read -r file; do
        case $(head -c 100 "$file" | head -n 1 | tr -d '\0') in
        '#!'*/sh | '#!'*/bash | '#!'*/ash | '# shellcheck shell='*) echo "$file" ;;
        esac
    done
}
mapfile -t all < <(scripts)
mapfile -t tests < <(printf '%s\n' "${all[@]}" | grep "^$repo/tests/")
mapfile -t others < <(printf '%s\n' "${all[@]}" | grep -v "^$repo/tests/")
check "shellcheck has nothing to say of ${#others[@]} scripts" shellcheck "${others[@]}"
check "nor anything serious of ${#tests[@]} scripts of the tests" shellcheck -S warning "${tests[@]}"

# ---- a root with three shells

root=$work/root
dracut=$repo/dracut-module/50xget
mkinitcpio=$repo/initramfs/mkinitcpio
initramfs_tools=$repo/initramfs/initramfs-tools

make_root() {
    local program library
    mkdir -p "$root"/{bin,dev,etc/cmdline.d,etc/xget,lib,proc,sbin,usr/bin,usr/share/initramfs-tools,hooks,unit,run}
    for program in dash bash busybox; do
        cp "$(command -v $program)" "$root/bin/"
        for library in $(ldd "$(command -v $program)" 2> /dev/null | grep -o '/[^ ]*'); do
            mkdir -p "$root$(dirname "$library")" && cp "$library" "$root$library"
        done
    done
    ln -s busybox "$root/bin/sh"
    ln -s ../../bin/busybox "$root/usr/bin/ln"
    ln -s ../../bin/busybox "$root/usr/bin/mkdir"
    : > "$root/dev/null"
    cp "$dracut"/*.sh "$initramfs_tools/scripts/xget" "$root/hooks/"
    cp "$initramfs_tools/hooks/xget" "$root/hooks/initramfs-tools-hook"
    cp "$mkinitcpio/hooks/xget" "$root/hooks/mkinitcpio"
    cp "$mkinitcpio/xget"/* "$root/hooks/"
    echo 'getarg() { [ "$1" = root= ] && echo "$cmdline_root"; }' > "$root/lib/dracut-lib.sh"
    echo "echo \"livenet's generator: \$*, root=\$root\"" > "$root/hooks/dracut-livenet-generator"
    for program in copy_exec copy_file auto_add_modules manual_add_modules; do
        echo "$program() { echo \"$program \$*\"; }"
    done > "$root/usr/share/initramfs-tools/hook-functions"
    : > "$root/etc/xget/cmdline"
    # xget, which fails where $fails is set, and fetches $fetches.
    cat > "$root/usr/bin/xget" <<'STUB'
#!/bin/sh
echo "xget $*${NEWROOT:+ to $NEWROOT}" >&2
[ -z "$fetches" ] || echo "$fetches"
[ -z "$fails" ]
STUB
    sed -i '1i #!/bin/sh' "$root/hooks/dracut-livenet-generator"
    chmod 755 "$root/usr/bin/xget" "$root/hooks/dracut-livenet-generator"
}
make_root

# in_each TEXT EXPECTED SCRIPT: what the script prints, in all three shells
in_each() {
    local shell got
    for shell in dash bash "busybox ash"; do
        rm -rf "$root"/etc/cmdline.d/* "$root"/unit/* "$root/sbin/ifup" "$root"/run/*
        # busybox ash is two words.
        # shellcheck disable=SC2086
        got=$(export shell; unset XGET; chroot "$root" $shell -c "$stubs$3" 2>&1)
        if [ "$got" != "$2" ]; then
            printf '%s\n' "expected:" "$2" "in $shell:" "$got" > "$work/got"
            fail "$1" "$work/got"
            return
        fi
    done
    pass "$1"
}

# ---- dracut

stubs='
getarg() {
    case $1 in
        root=) echo "$cmdline_root" ;;
        ip=) [ -n "$cmdline_ip" ] && echo "$cmdline_ip" ;;
        *) return 1 ;;
    esac
}
getargbool() { [ -e "/etc/cmdline.d/50xget.conf" ]; }
ismounted() { [ -n "$mounted" ]; }
emergency_shell() { echo "shell: $*"; }
add_url_handler() { echo "handler $*"; }
NEWROOT=/sysroot
'
in_each "dracut: root=xget:// is a root, and needs no network of dracut's" "root ok 1, went on" '
    root=xget://head/node.img; . /hooks/parse-xget.sh
    [ ! -e /etc/cmdline.d/50xget.conf ] && echo "root ok $rootok, went on"'
in_each "dracut: it is found on the kernel command line too" "root ok 1" '
    cmdline_root=xget:///node.img; . /hooks/parse-xget.sh; echo "root ok $rootok"'
in_each "dracut: nor where it has one that is told nothing" "went on" '
    root=xget://head/node.img; : > /sbin/ifup; . /hooks/parse-xget.sh
    [ ! -e /etc/cmdline.d/50xget.conf ] && echo "went on"'
in_each "dracut: one that is told what to do is asked for, once" "rd.neednet=1" '
    root=xget://head/node.img cmdline_ip=dhcp; : > /sbin/ifup
    . /hooks/parse-xget.sh; . /hooks/parse-xget.sh
    while read -r line; do echo "$line"; done < /etc/cmdline.d/50xget.conf'
in_each "dracut: other roots are left alone" "ok: , went on" '
    for root in /dev/sda1 livenet live:xget://head/node.img nfs:head:/srv; do
        . /hooks/parse-xget.sh; . /hooks/mount-xget.sh
    done
    echo "ok: $rootok, went on"'
in_each "dracut: the root is mounted where dracut wants it" "xget --boot to /sysroot
went on" 'root=xget://head/node.img; . /hooks/mount-xget.sh; echo "went on"'
in_each "dracut: and not again" "went on" '
    mounted=yes; root=xget://head/node.img; . /hooks/mount-xget.sh; echo "went on"'
in_each "dracut: a root that cannot be mounted ends in the emergency shell" "xget --boot to /sysroot
shell: xget cannot mount xget://head/node.img; the message above says why
went on" 'export fails=yes; root=xget://head/node.img; . /hooks/mount-xget.sh; echo "went on"'

handler='unset NEWROOT; . /hooks/url-xget.sh
: > /run/node.img; export fetches=/run/node.img
'
in_each "dracut: the URL handler is for xget, and says where it put the file" "handler xget_fetch_url xget
xget --boot xget://head/node.img
/run/node.img, 0" "$handler"'where=$(xget_fetch_url xget://head/node.img); echo "$where, $?"'
in_each "dracut: or puts it where it is wanted" "handler xget_fetch_url xget
xget --boot xget://head/node.img
there is /run/here" "$handler"'xget_fetch_url xget://head/node.img /run/here && [ -f /run/here ] && echo "there is /run/here"'
in_each "dracut: and says when it has failed, or when it is no file" "handler xget_fetch_url xget
xget --boot xget://head/node.img
1
xget --boot xget://head/images
253" "$handler"'
    cmdline_root=live:xget://head/root.img
    fails=yes xget_fetch_url xget://head/node.img; echo $?
    fetches=/run xget_fetch_url xget://head/images; echo $?'

in_each "dracut: a live root that cannot be fetched ends in the emergency shell" "handler xget_fetch_url xget
xget --boot xget://head/node.img
shell: xget cannot fetch the root xget://head/node.img; the message above says why
1" "$handler"'
    cmdline_root=live:xget://head/node.img
    fails=yes xget_fetch_url xget://head/node.img; echo $?'

# Generators are programs; the shell that runs the script runs them too.
in_each "dracut: systemd makes no mount unit of root=xget://, and no target needs one" "/dev/null
/dev/null
/dev/null" '
    export cmdline_root=xget://head/node.img
    $shell /hooks/xget-generator.sh /unit/normal /unit /unit/late
    for unit in sysroot.mount initrd-root-fs.target.requires/sysroot.mount initrd-usr-fs.target.requires/sysroot.mount; do
        busybox readlink /unit/$unit
    done'
in_each "dracut: and of root=live:xget:// the one that livenet makes" \
    "livenet's generator: /unit/normal /unit /unit/late, root=live:http://xget" '
    export cmdline_root=live:xget://head/node.img
    $shell /hooks/xget-generator.sh /unit/normal /unit /unit/late'
in_each "dracut: and of other roots what it would" "0, /unit/*" '
    for cmdline_root in /dev/sda1 live:http://head/node.img "" ; do
        export cmdline_root; $shell /hooks/xget-generator.sh /unit/normal /unit /unit/late || break
    done
    echo $?, /unit/*'

# ---- initramfs-tools

stubs='
wait_for_udev() { :; }
panic() { echo "panic: $*"; }
rootmnt=/root ROOT=xget://head/node.img
. /hooks/xget
'
in_each "initramfs-tools: the root is mounted where init wants it" "xget --boot to /root
went on" 'mount_top; mount_premount; mountroot; mount_bottom; echo "went on"'
in_each "initramfs-tools: a root that cannot be mounted ends in init's shell" "xget --boot to /root
panic: xget cannot mount xget://head/node.img; the message above says why
went on" 'export fails=yes; mountroot; echo "went on"'
stubs=
in_each "initramfs-tools: the hook needs no others before it" ", 0" \
    'before=$($shell /hooks/initramfs-tools-hook prereqs); echo "$before, $?"'
in_each "initramfs-tools: it puts the program, its settings and modules into the image" \
    "copy_exec /usr/bin/xget /usr/bin/xget
copy_file config /etc/xget/cmdline
auto_add_modules net
manual_add_modules squashfs erofs ext4 overlay loop af_packet virtio_net virtio_pci 8021q" \
    '$shell /hooks/initramfs-tools-hook'
in_each "initramfs-tools: without the program there is no image" "E: xget: /usr/bin/xgte is no program
1" 'XGET=/usr/bin/xgte $shell /hooks/initramfs-tools-hook; echo $?'

# ---- mkinitcpio

stubs='
err() { echo "error: $*"; }
launch_interactive_shell() { echo "a shell"; }
run_hookfunctions() { kind=$2; shift 2; echo "$kind: $*"; }
EMERGENCYHOOKS="plymouth sleep"
mount_handler=default_mount_handler
fsck_root() { echo "checks $root"; }
# stat -c %D DIRECTORY: another file system than / once one is mounted there
stat() { [ "$3" = / ] || [ -z "$mounted" ] || echo 2a; }
. /hooks/mkinitcpio
'
in_each "mkinitcpio: root=xget:// is mounted by its handler, and there is nothing to check" \
    "xget_mount_handler" 'root=xget:///node.img; run_hook; fsck_root; echo "$mount_handler"'
in_each "mkinitcpio: other roots are left alone" "checks /dev/sda1
default_mount_handler" '
    for root in "" UUID=1 /dev/sda1; do run_hook; done; fsck_root; echo "$mount_handler"'
in_each "mkinitcpio: the root is mounted where init wants it" "xget --boot to /new
went on" 'root=xget:///node.img; xget_mount_handler /new; echo "went on"'
in_each "mkinitcpio: a root that cannot be mounted ends in a shell, and is tried once more" "xget --boot to /new
emergency hook: plymouth sleep
error: xget cannot mount xget:///node.img; the message above says why
This is a shell to look around. Type 'exit' to try once more.
a shell
xget --boot to /new
went on" 'export fails=yes; root=xget:///node.img; xget_mount_handler /new; echo "went on"'
in_each "mkinitcpio: one that was mounted in the shell is kept" "xget --boot to /new
emergency hook: plymouth sleep
error: xget cannot mount xget:///node.img; the message above says why
This is a shell to look around. Type 'exit' to try once more.
a shell
went on" '
    export fails=yes; root=xget:///node.img; launch_interactive_shell() { echo "a shell"; mounted=yes; }
    xget_mount_handler /new; echo "went on"'
stubs=
in_each "mkinitcpio: with systemd sysroot.mount is one that waits as long as it takes" "Where=/sysroot
Type=xget
TimeoutSec=infinity" '
    echo "quiet root=/dev/sda1 root=xget://head/node.img ro *" > /proc/cmdline
    $shell /hooks/xget-generator /unit/normal /unit /unit/late
    while read -r line; do case $line in Wh*e=*|T*) echo "$line" ;; esac; done < /unit/sysroot.mount'
in_each "mkinitcpio: other roots are left to systemd" "0, /unit/*" '
    echo "quiet root=xget://head/node.img root=/dev/sda1" > /proc/cmdline
    $shell /hooks/xget-generator /unit/normal /unit /unit/late; echo $?, /unit/*'
in_each "mkinitcpio: mount.xget mounts where mount(8) says" "xget --boot to /sysroot" \
    '$shell /hooks/mount.xget xget /sysroot -o rw'
finish
