#!/bin/sh
# shellcheck disable=SC2154  # dracut sets root
# mount hook: fetches the root and mounts it. It is called until something is mounted; where xget cannot, that
# is final, and rd.shell and rd.emergency= say what becomes of it. After the shell's `exit` it is tried again.

case $root in
    xget://*)
        if ! ismounted "$NEWROOT" && ! NEWROOT=$NEWROOT /usr/bin/xget --boot; then
            emergency_shell "xget cannot mount $root; the message above says why"
        fi
        ;;
esac
