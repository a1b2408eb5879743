#!/bin/bash
# The Debian packages, in a small Debian of their own: lintian has nothing to say of them, they are installed, do
# their work, put xget into what initramfs-tools and dracut make, and leave nothing behind when they are purged.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need_root
need dpkg-deb:dpkg lintian:lintian mmdebstrap:mmdebstrap unshare:util-linux make:make git:git
need_static

names=(xget xget-node xget-dracut xget-initramfs-tools xget-mkinitcpio)

# ---- they are made

packages=$target/packages
make_packages() { CARGO_TARGET_DIR=$target "$repo/packaging/deb"; }
check "they are made" make_packages
lint() { lintian --allow-root --fail-on error,warning --display-info "$packages"/*.deb; }
check "lintian has nothing to say of them" lint

# ---- a Debian

root=$work/root
small_debian() {
    mmdebstrap --variant=minbase --include=initramfs-tools,busybox,kmod,systemd,dracut-core \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$root" &&
        mkdir "$root/packages" && cp "$packages"/*.deb "$root/packages/"
}
small_debian > "$work/debian.log" 2>&1 || { skip "a small Debian" "a mirror of Debian"; finish; }

# inside COMMAND...: there, with a network of its own, and processes that end with it
inside() {
    unshare --net --pid --fork --mount-proc="$root/proc" --kill-child \
        chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"
}

# A kernel without modules, for which there is an initramfs.
mkdir -p "$root/lib/modules/6.1-test"
touch "$root/lib/modules/6.1-test"/modules.{order,builtin,builtin.modinfo}
echo CONFIG_RD_GZIP=y > "$root/boot/config-6.1-test"
: > "$root/boot/vmlinuz-6.1-test"
inside depmod 6.1-test
inside update-initramfs -c -k 6.1-test > "$work/initramfs.log" 2>&1
has_xget() { inside lsinitramfs /boot/initrd.img-6.1-test | grep -x usr/bin/xget; }

# What the kernel shows, what does not outlive a boot, and what dpkg and initramfs-tools note is none of theirs.
listing() {
    (cd "$root" && find . -regextype egrep \
        -regex './(proc|sys|dev|run|tmp|packages|boot|var/log|var/lib/dpkg|var/lib/initramfs-tools)' -prune \
        -o -printf '%p %M %U:%G %l\n') | sort
}
listing > "$work/before"

# ---- they are installed

install_packages() { inside sh -c 'dpkg -i /packages/*.deb'; }
check "they are installed, with nothing missing" install_packages
check "initramfs-tools has made its initramfs anew, with xget" has_xget
is_disabled() { [ "$(inside systemctl is-enabled "$1")" = disabled ]; }
check "no unit is enabled" eval "is_disabled xget.service && is_disabled xget-master.service && is_disabled xget-master.socket"
check "systemd has nothing to say of the units" inside systemd-analyze --man=no verify xget.service xget-master.service xget-master.socket

serves_and_fetches() {
    inside sh -ec '
        busybox ip link set lo up
        mkdir -p /tmp/srv && echo kernel > /tmp/srv/vmlinuz
        xget -b --cache none --listen 127.0.0.1 /tmp/srv
        xget-node -q -n 127.0.0.1 --serve no . /tmp/new
        cmp /tmp/srv/vmlinuz /tmp/new/vmlinuz'
}
check "what is served by xget is fetched by xget-node" serves_and_fetches
dracut_initramfs() {
    inside dracut --quiet --no-hostonly --add xget --modules "base bash fs-lib xget" --kver 6.1-test --force /tmp/dracut.img &&
        inside lsinitrd /tmp/dracut.img | grep -w usr/bin/xget
}
check "dracut makes an initramfs with xget" dracut_initramfs
check "manual pages, completions, documents and hooks are there" ls "$root"/usr/share/{man/man1/xget.1.gz,man/man7/xget.cmdline.7.gz} \
    "$root"/usr/share/{bash-completion/completions/xget,zsh/vendor-completions/_xget,fish/vendor_completions.d/xget.fish} \
    "$root"/usr/share/doc/xget/{README.md,docs/boot.md,copyright} "$root"/usr/lib/initcpio/{install,hooks}/xget
check "every file is as it was packed" inside dpkg --verify "${names[@]}"

# ---- they are removed

# The hashes of what was served, and a unit that somebody has enabled.
inside systemctl enable xget-master.service > /dev/null 2>&1
mkdir -p "$root/var/cache/xget" && : > "$root/var/cache/xget/hashes"
check "they are upgraded" install_packages
check "who has enabled a unit keeps it" [ "$(inside systemctl is-enabled xget-master.service)" = enabled ]
check "they are removed" inside dpkg --remove "${names[@]}"
lost_xget() { ! has_xget; }
check "initramfs-tools has made its initramfs anew, without xget" lost_xget
check "they are purged" inside dpkg --purge "${names[@]}"
listing > "$work/after"
check "nothing is left behind" diff "$work/before" "$work/after"
finish
