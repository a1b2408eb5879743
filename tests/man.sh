#!/bin/bash
# The manual pages: mandoc has nothing to say of them, and xget.1 explains the options that there are.
. "$(dirname "$0")/lib.sh"
need mandoc:mandoc col:bsdextrautils
need_xget

for page in xget.1 xget.cmdline.7; do
    check "mandoc has nothing to say of $page" mandoc -T lint -W warning "$repo/docs/$page"
done

# explained: the options that begin a paragraph, as a reader sees them
explained() {
    mandoc -T ascii "$repo/docs/xget.1" | col -b | sed '1,/^OPTIONS/d' |
        sed -nE 's/^     (-[a-zA-Z], )?(--[a-z0-9-]+)( .*)?$/\1\n\2/p' | grep -oE -e '-[^, ]+' | sort
}
check "xget.1 explains every option of --help, and no other" diff <(options_of_help) <(explained)
finish
