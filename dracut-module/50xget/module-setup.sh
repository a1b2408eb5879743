#!/bin/bash
# shellcheck disable=SC2154  # dracut sets moddir, initdir and others
# dracut module: the root file system by xget.
#
#   root=xget://HOST/PATH        xget fetches it and mounts it
#   root=live:xget://HOST/PATH   dmsquash-live (livenet) mounts it
#
# XGET names another binary than /usr/bin/xget-node or /usr/bin/xget, the smaller of which is taken.

xget_binary() {
    local path found=${XGET:-}
    for path in /usr/bin/xget-node /usr/bin/xget /usr/local/bin/xget-node /usr/local/bin/xget; do
        [[ -z $found && -x $path ]] && found=$path
    done
    [[ -x $found ]] && echo "$found"
}

# 255: only where it is asked for, by --add or add_dracutmodules.
check() {
    xget_binary > /dev/null || return 1
    return 255
}

depends() {
    return 0
}

installkernel() {
    # A root from the network is for any machine, whatever this one has; phy and mdio are what cards load
    # when they find it beside them.
    hostonly='' instmods squashfs erofs ext4 overlay loop af_packet 8021q \
        '=drivers/net/ethernet' '=drivers/net/phy' '=drivers/net/mdio' '=drivers/net/usb' \
        virtio_net virtio_pci virtio_mmio vmxnet3 hv_netvsc xen-netfront
}

install() {
    # With its libraries, if it has any.
    inst "$(xget_binary)" /usr/bin/xget || return 1
    inst_multiple -o /etc/xget/cmdline /etc/xget/key.pub
    # What an archive may be packed with.
    inst_multiple -o xz zstd bzip2 lz4 lzma lzop
    inst_hook cmdline 50 "$moddir/parse-xget.sh"
    inst_hook mount 50 "$moddir/mount-xget.sh"
    if dracut_module_included url-lib; then
        # Whoever fetches reads url-lib.sh, in a process of its own, and so is to find the handler there.
        inst_simple "$(dracut_module_path url-lib)/url-lib.sh" /lib/url-lib.sh
        inst_simple "$moddir/url-xget.sh" /lib/url-xget.sh
        echo '. /lib/url-xget.sh' >> "$initdir/lib/url-lib.sh"
    fi
    if dracut_module_included systemd; then
        inst_script "$moddir/xget-generator.sh" "$systemdutildir/system-generators/dracut-xget-generator"
    fi
    dracut_need_initqueue
}
