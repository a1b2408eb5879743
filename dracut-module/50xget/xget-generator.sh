#!/bin/sh
# Keeps systemd from making a mount unit of root=xget://..., which is no device, and has it make the
# usual one of root=live:xget://.... $2 is the directory for units that come before all others
# (systemd.generator(7)). Targets that require a masked unit do not start since systemd 254: what
# systemd-fstab-generator has them require is masked as well.

# shellcheck source=/dev/null  # it is dracut's
command -v getarg > /dev/null || . /lib/dracut-lib.sh
livenet=${0%/*}/dracut-livenet-generator
case $(getarg root=) in
    xget://*)
        ln -sf /dev/null "$2/sysroot.mount"
        for target in initrd-root-fs initrd-usr-fs; do
            mkdir -p "$2/$target.target.requires"
            ln -sf /dev/null "$2/$target.target.requires/sysroot.mount"
        done
        ;;
    # What livenet mounts does not depend on where it comes from, but its generator knows a few schemes only.
    live:xget://*) [ ! -x "$livenet" ] || root=live:http://xget exec "$livenet" "$@" ;;
esac
