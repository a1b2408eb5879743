#!/bin/sh
# Keeps systemd from making a mount unit of root=xget://..., which is no device.
# $2 is the directory for units that come before all others (systemd.generator(7)).

command -v getarg > /dev/null || . /lib/dracut-lib.sh
case $(getarg root=) in
    xget://*) ln -sf /dev/null "$2/sysroot.mount" ;;
esac
