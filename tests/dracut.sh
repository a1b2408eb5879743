#!/bin/bash
# dracut's initramfs with the module of dracut-module/: a machine boots from a squashfs image by
# root=xget://, and goes on serving it from its real root.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
. "$(dirname "$0")/vm/dracut.sh"
need_machines dracut:dracut-core unshare:util-linux make:make
! in_full || need mmdebstrap:mmdebstrap

# ---- the initramfs

own="base bash udev-rules xget"
if ! in_full; then
    check "dracut makes an initramfs with systemd" dracut_initramfs systemd.img "$own $dracut_systemd"
    boot_server && boots systemd 2 "root=xget:///$image"
    finish
fi
check "dracut makes an initramfs without systemd and without a network of its own" dracut_initramfs plain.img "$own"
check "and one with systemd" dracut_initramfs systemd.img "$own $dracut_systemd"
if newer_dracut trixie > "$work/debian.log" 2>&1; then
    check "and the dracut and systemd of Debian 13 do" newer_initramfs newer.img "$own $dracut_systemd"
else
    skip "the dracut and systemd of Debian 13" "a mirror of Debian"
fi

# ---- the machines

not_printed() { ! vm_printed "$@"; }

boot_server || finish
boots plain 1 "root=xget:///$image"
boots systemd 2 "root=xget:///$image"
[ ! -e "$work/newer.img" ] || boots newer 4 "root=xget:///$image"
check "plain: dmesg tells what xget did" vm_prints 30 plain '^ROOT dmesg .*xget: fetched [0-9]+ file'
check "plain: and not how far it was" not_printed plain '^ROOT dmesg .* % of '

# What cannot be had ends the boot as rd.emergency= says.
for name in plain systemd newer; do
    [ -e "$work/$name.img" ] || continue
    n=$((${n:-4} + 1))
    vm_on_switch "not-$name" $n -m 768 -no-reboot -kernel "$vmlinuz" -initrd "$work/$name.img" \
        -append "console=ttyS0 no_timer_check panic=-1 quiet rd.shell=0 rd.emergency=reboot root=xget:///images/none"
done
for name in plain systemd newer; do
    [ -e "$work/$name.img" ] || continue
    check "$name: what is not served is told" vm_prints 240 "not-$name" "xget: $(ip_of 0) does not serve images/none"
    check "$name: and the machine starts again" wait_for 60 is_over "not-$name"
done

end TERM master
check "plain: with the master gone it serves its image" fetches_from 1
check "systemd: with the master gone it serves its image" fetches_from 2
# Who is named first is the master, which is not there any more.
ln "$work/systemd.img" "$work/later.img"
boots later 3 "root=xget:///$image rd.xget.server=$(ip_of 0),$(address_of 1),$(address_of 2)"
finish
