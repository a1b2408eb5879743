# shellcheck shell=bash
# A stand-in for mkinitcpio, which Debian does not have: the layout of its initramfs, the functions that
# install hooks call (mkinitcpio(8), "About install hooks"), its hooks `base` and `systemd` as far as a
# machine without disks needs them, and an init that calls runtime hooks in its order ("About runtime
# hooks"). After root.sh beside this.

mkinitcpio_hooks=$work/installed/usr/lib/initcpio

# install_hooks: where mkinitcpio looks for them
install_hooks() { make -s -C "$repo" DESTDIR="$work/installed" install-mkinitcpio; }

# mkinitcpio_initramfs FILE HOOK...: names of hooks, those that were installed and those below
mkinitcpio_initramfs() (
    BUILDROOT=$work/$1.root
    declare -A runhooks=()
    make_layout
    for hook in "${@:2}"; do
        unset -f build
        case $hook in
        base | systemd) "build_$hook" || exit ;;
        *)
            # shellcheck disable=SC1090  # which one it is nobody knows before
            . "$mkinitcpio_hooks/install/$hook" || exit
            XGET=$static_node build || exit
            ;;
        esac
    done
    {
        echo 'MODULES="virtio_pci virtio_net"'
        for kind in early '' late cleanup emergency; do echo "${kind^^}HOOKS=\"${runhooks[run_${kind}hook]:-}\""; done
    } > "$BUILDROOT/config"
    cp "$kernels/root/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$BUILDROOT/lib/modules/$version/"
    depmod -b "$BUILDROOT" "$version"
    pack "$BUILDROOT" "$work/$1"
)

make_layout() {
    mkdir -p "$BUILDROOT"/{dev,proc,run,sys,new_root,tmp,var,etc,usr/bin,usr/lib/modules}
    ln -s usr/bin "$BUILDROOT/bin"
    ln -s usr/bin "$BUILDROOT/sbin"
    ln -s bin "$BUILDROOT/usr/sbin"
    ln -s usr/lib "$BUILDROOT/lib"
    ln -s usr/lib "$BUILDROOT/lib64"
    ln -s lib "$BUILDROOT/usr/lib64"
    echo NAME=initramfs > "$BUILDROOT/etc/initrd-release"
}

# ---- what install hooks call

error() { echo "ERROR: $*" >&2; }
warning() { echo "WARNING: $*" >&2; }

# map COMMAND ARGUMENT...: once for each
map() {
    local command=$1 argument result=0; shift
    for argument; do "$command" "$argument" || result=1; done
    return $result
}

# add_file PATH [DESTINATION [MODE]]
add_file() {
    install -D -m "${3:-$(stat -L -c %a "$1")}" "$1" "$BUILDROOT${2:-$1}"
}

# add_binary PROGRAM [DESTINATION [MODE]]: and the libraries that it needs
add_binary() {
    local program library shebang interpreter
    program=$(type -P "$1") || { error "binary not found: $1"; return 1; }
    add_file "$program" "${2:-$program}" ${3:+"$3"} || return
    # What runs a script has to be there before it.
    shebang=$(head -c 2 "$program" | tr -d '\0')
    if [ "$shebang" = '#!' ]; then
        interpreter=$(head -n 1 "$program" | sed 's/^#! *//; s/ .*//')
        [ -e "$BUILDROOT$interpreter" ] ||
            { warning "possibly missing '$interpreter' for script: $program"; return 1; }
    fi
    ldd "$program" 2> /dev/null | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$BUILDROOT$library" ] || add_file "$library"
    done
}

# add_symlink PATH TARGET
add_symlink() { mkdir -p "$BUILDROOT${1%/*}" && ln -sfn "$2" "$BUILDROOT$1"; }

# add_module NAME: and what it needs; NAME? need not be there
add_module() {
    local files file
    files=$(modprobe -d "$kernels/root" -S "$version" --show-depends "${1%\?}" 2> /dev/null) ||
        [[ $1 = *\? ]] || { error "module not found: $1"; return 1; }
    awk '$1 == "insmod" { print $2 }' <<< "$files" | while read -r file; do
        add_file "$file" "${file#"$kernels/root"}"
    done
}

# add_checked_modules [-f FILTER] PATTERN: whose path has the pattern and not the filter
add_checked_modules() {
    local filter='^$' name
    [ "$1" != -f ] || { filter=$2; shift 2; }
    find "$kernels/root/lib/modules/$version" -name '*.ko*' | grep -E "$1" | grep -vE "$filter" | while read -r name; do
        name=${name##*/}
        add_module "${name%.ko*}"
    done
}

# add_runscript: the runtime hook that has the name of the install hook
add_runscript() {
    local name=${BASH_SOURCE[1]##*/} function
    add_file "$mkinitcpio_hooks/hooks/$name" "/hooks/$name" 755
    for function in $(grep -o '^run_[a-z]*hook' "$mkinitcpio_hooks/hooks/$name"); do
        runhooks[$function]+=" $name"
    done
}

# add_systemd_unit NAME: with the programs and units that it requires
add_systemd_unit() {
    local unit=/usr/lib/systemd/system/$1 key values link
    [ -e "$unit" ] || { error "unit not found: $1"; return 1; }
    [ ! -e "$BUILDROOT$unit" ] || return 0
    add_file "$unit"
    while IFS='=' read -r key values; do
        read -ra values <<< "$values"
        case $key in
        Requires | OnFailure) map add_systemd_unit "${values[@]}" ;;
        Exec*) [[ ${values[0]} = -* ]] || add_binary "${values[0]#[@!:+]}" ;;
        esac
    done < "$unit"
    for link in /usr/lib/systemd/system/*.wants/"$1"; do
        [ ! -L "$link" ] || add_symlink "$link" "../$1"
    done
}

# ---- the hooks that come with it

build_base() {
    local applet
    add_binary busybox /usr/bin/busybox
    # Those of kmod and util-linux are taken, as mkinitcpio does.
    for applet in $(busybox --list | grep -vxE 'busybox|modprobe|mount|switch_root'); do
        add_symlink "/usr/bin/$applet" busybox
    done
    add_binary kmod /usr/bin/modprobe
    add_binary mount /usr/bin/mount
    add_binary switch_root /usr/bin/switch_root
    mkinitcpio_init > "$BUILDROOT/init"
    chmod 755 "$BUILDROOT/init"
}

mkinitcpio_init() {
    cat <<'INIT'
#!/usr/bin/ash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/bin
mount_handler=default_mount_handler

msg() { echo "$@"; }
err() { echo "ERROR: $*"; }
launch_interactive_shell() { echo "a shell"; }
default_mount_handler() {
    run_hookfunctions run_emergencyhook 'emergency hook' $EMERGENCYHOOKS
    err "$root is no device"
    launch_interactive_shell
}

# run_hookfunctions FUNCTION KIND HOOK...
run_hookfunctions() {
    local function=$1 kind=$2 hook; shift 2
    for hook; do
        [ -x "/hooks/$hook" ] || continue
        unset "$function"
        . "/hooks/$hook"
        type "$function" > /dev/null || continue
        msg ":: running $kind [$hook]"
        "$function"
    done
}

mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sys /sys
mount -t devtmpfs -o nosuid,mode=0755 dev /dev
mount -t tmpfs -o nosuid,nodev,mode=0755 run /run
mkdir -m 755 /run/initramfs
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done

. /config
run_hookfunctions run_earlyhook 'early hook' $EARLYHOOKS
modprobe -qab $MODULES
run_hookfunctions run_hook 'hook' $HOOKS
"$mount_handler" /new_root
if [ "$(stat -c %D /)" = "$(stat -c %D /new_root)" ]; then
    err "Failed to mount the real root device"
    launch_interactive_shell
fi
run_hookfunctions run_latehook 'late hook' $LATEHOOKS
run_hookfunctions run_cleanuphook 'cleanup hook' $CLEANUPHOOKS
exec env -i "TERM=$TERM" /usr/bin/switch_root /new_root /sbin/init
INIT
}

build_systemd() {
    add_binary /usr/lib/systemd/systemd /init
    mkdir -p "$BUILDROOT/sysroot"
    map add_binary kmod mount umount systemd-tmpfiles journalctl udevadm /usr/lib/systemd/systemd-shutdown \
        /usr/lib/systemd/system-generators/systemd-fstab-generator
    add_symlink /usr/bin/modprobe kmod
    map add_systemd_unit initrd.target initrd-cleanup.service initrd-fs.target initrd-parse-etc.service \
        initrd-root-fs.target initrd-root-device.target initrd-switch-root.service initrd-switch-root.target \
        initrd-udevadm-cleanup-db.service kmod-static-nodes.service local-fs.target local-fs-pre.target \
        paths.target reboot.target slices.target sockets.target swap.target timers.target \
        systemd-journald-dev-log.socket systemd-journald.service systemd-modules-load.service \
        systemd-tmpfiles-setup-dev.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
        systemd-udevd.service systemd-udev-trigger.service emergency.target
    map add_file /usr/lib/udev/rules.d/{50-udev-default,80-drivers,99-systemd}.rules
    add_symlink /usr/lib/systemd/system/default.target initrd.target
    add_symlink /usr/lib/systemd/system/ctrl-alt-del.target reboot.target
    echo root:x:0:0:root:/root:/bin/sh > "$BUILDROOT/etc/passwd"
    grep -E '^(root|audio|disk|input|kmem|kvm|lp|render|sgx|tape|tty|video|dialout|cdrom):' /etc/group |
        sed 's/:[^:]*$/:/' > "$BUILDROOT/etc/group"
    mkdir -p "$BUILDROOT/etc/modules-load.d"
    printf '%s\n' virtio_pci virtio_net > "$BUILDROOT/etc/modules-load.d/MODULES.conf"
}
