#!/bin/sh
# shellcheck disable=SC2154  # dracut sets root
# mount hook: fetches the root and mounts it. It may be called again and again; one failure is final.

case $root in
    xget://*)
        if ! ismounted "$NEWROOT"; then
            NEWROOT=$NEWROOT /usr/bin/xget --boot || die "xget cannot mount $root; the message above says why"
        fi
        ;;
esac
