# shellcheck shell=bash
# Helpers for tests with dracut's initramfs, after root.sh beside this.

# What an initramfs with systemd has besides.
dracut_systemd="systemd systemd-initrd dracut-systemd systemd-udevd systemd-journald systemd-tmpfiles \
    systemd-modules-load systemd-sysctl"

dracut_options=(-f -q --no-hostonly --no-hostonly-cmdline --no-early-microcode --compress "zstd -q -1")

# dracut_initramfs FILE MODULES: these modules, of dracut's own and of dracut-module/
dracut_initramfs() {
    # dracut takes modules from one directory: its own, and ours among them.
    local base=$work/dracut file
    if [ ! -d "$base" ]; then
        mkdir -p "$base/modules.d" "$work/none"
        for file in /usr/lib/dracut/*; do [ "$(basename "$file")" = modules.d ] || ln -s "$file" "$base/"; done
        ln -s /usr/lib/dracut/modules.d/* "$repo/dracut-module/50xget" "$base/modules.d/"
    fi
    dracutbasedir=$base XGET=$static_node dracut "${dracut_options[@]}" \
        --kver "$version" --kmoddir "$kernels/root/lib/modules/$version" --tmpdir "$work" --conf /dev/null \
        --confdir "$work/none" -m "$2" "$work/$1"
}

# newer_dracut RELEASE: a small Debian of that release, whose dracut and systemd `newer_initramfs` uses
debian=$work/debian
newer_dracut() {
    mmdebstrap --variant=minbase --include=dracut-core,systemd-sysv,udev,kmod,zstd --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$1" "$debian" &&
        make -s -C "$repo" install-dracut install-node DESTDIR="$debian" PREFIX=/usr NODE_PROGRAM="$static_node" &&
        mkdir -p "$debian/lib/modules" && cp -a "$kernels/root/lib/modules/$version" "$debian/lib/modules/"
}

# newer_initramfs FILE MODULES
newer_initramfs() {
    unshare --net --pid --fork --mount-proc="$debian/proc" --kill-child \
        chroot "$debian" env -u XGET dracut "${dracut_options[@]}" --kver "$version" -m "$2" "/$1" &&
        mv "$debian/$1" "$work/$1"
}
