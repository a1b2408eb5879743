#!/bin/sh
# shellcheck shell=dash  # dracut's own need `local` too
# Lets everything in dracut that takes a URL take xget://... as well; so root=live:xget://... works.
# It is read at the end of dracut's url-lib.sh.

# xget_fetch_url URL [FILE]: prints where it is, or lets FILE be it
xget_fetch_url() {
    local fetched
    if ! fetched=$(/usr/bin/xget --boot "$1"); then
        # Livenet would try a hundred times; where xget ends that is final.
        [ "$(getarg root=)" != "live:$1" ] ||
            emergency_shell "xget cannot fetch the root $1; the message above says why" >&2
        return 1
    fi
    [ -f "$fetched" ] || return 253
    if [ -n "$2" ]; then
        ln -sf "$fetched" "$2"
    else
        echo "$fetched"
    fi
}

add_url_handler xget_fetch_url xget
