#!/bin/bash
# dracut's initramfs with the module of dracut-module/: a machine boots from a squashfs image by
# root=xget://, and goes on serving it from its real root.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
. "$(dirname "$0")/vm/root.sh"
. "$(dirname "$0")/vm/dracut.sh"
need_machines dracut:dracut-core

# ---- the initramfs

own="base bash udev-rules kernel-modules fs-lib xget"
check "dracut makes an initramfs without systemd and without a network of its own" dracut_initramfs plain.img "$own"
check "and one with systemd" dracut_initramfs systemd.img "$own $dracut_systemd"

# ---- the machines

not_printed() { ! vm_printed "$@"; }

boot_server || finish
boots plain 1 "root=xget:///$image"
boots systemd 2 "root=xget:///$image"
check "plain: dmesg tells what xget did" vm_prints 30 plain '^ROOT dmesg .*xget: [0-9]+ files whole'
check "plain: and not how far it was" not_printed plain '^ROOT dmesg .* % of '
end TERM master
check "plain: with the master gone it serves its image" fetches_from 1
check "systemd: with the master gone it serves its image" fetches_from 2
# Who is named first is the master, which is not there any more.
ln "$work/systemd.img" "$work/later.img"
boots later 3 "root=xget:///$image rd.xget.server=$(ip_of 0),$(address_of 1),$(address_of 2)"
finish
