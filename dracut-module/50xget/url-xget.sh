#!/bin/sh
# Lets everything in dracut that takes a URL take xget://... as well; so root=live:xget://... works.

command -v add_url_handler > /dev/null || . /lib/url-lib.sh

# xget_fetch_url URL [FILE]: prints where it is
xget_fetch_url() {
    local fetched
    fetched=$(/usr/bin/xget --boot "$1") || return 1
    [ -e "$fetched" ] || return 253
    if [ -n "$2" ]; then
        ln -sf "$fetched" "$2" || return 1
        fetched=$2
    fi
    echo "$fetched"
}

add_url_handler xget_fetch_url xget
