#!/bin/sh
# cmdline hook: says that root=xget://... is a root, although no device will come of it.

[ -n "$root" ] || root=$(getarg root=)
case $root in
    xget://*)
        # shellcheck disable=SC2034  # dracut reads it
        rootok=1
        # Who tells dracut's own network what to do gets that, up before the mount; else xget brings it up.
        if [ -e /sbin/ifup ] || [ -e /usr/libexec/nm-initrd-generator ] || [ -e /usr/lib/systemd/systemd-networkd ]; then
            for word in ip bond bridge team vlan ifname rd.route; do
                getarg "$word=" > /dev/null || continue
                getargbool 0 rd.neednet || echo rd.neednet=1 >> /etc/cmdline.d/50xget.conf
                break
            done
        fi
        ;;
esac
