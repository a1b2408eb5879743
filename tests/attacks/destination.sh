# shellcheck shell=bash
# Another user of the machine can write to the destination, to the cache, or to where processes meet. No run of root
# gives that user's files an owner or set-id bits, or takes them for what was fetched.

net_up 2 2> "$work/net.log" || { fail "a network of namespaces is made" "$work/net.log"; finish; }
src=$work/dest-src
rm -rf "$src" && mkdir -p "$src/d"
random_file "$src/image" 20M
random_file "$src/d/inner" 8M
random_file "$src/z-su" 24M
chmod 4755 "$src/z-su"
chmod 755 "$work"

# As fast as needed for the attacker to come in between.
master 0 "$src" --max-upload 12M || { fail "the master starts" "$(log master)"; return; }

# theirs: an empty directory of nobody
theirs() { rm -rf "$work/theirs" && mkdir "$work/theirs" && chown nobody: "$work/theirs"; }

# attack_files ACTION ARGUMENT...: in the background; returns once it has begun
attack_files() {
    : > "$work/intruder.out"                # what an earlier one has said
    start intruder - python3 -u "$attacks/destination.py" "$@"
    wait_for 60 grep -q ready "$work/intruder.out" || fail "the intruder ($1) is there" "$(log intruder)"
}
attack_files_over() {
    ! is_running intruder || kill -TERM "${pid[intruder]}"
    exit_of intruder 30
}
# victim_over: waits for its end and that of the attack; sets $fetched, its exit code
victim_over() { exit_of victim 90; fetched=$code; attack_files_over; }

# right_or_refused DIR NAME...: the fetch has failed, or each of these files is what it should be
right_or_refused() {
    local dir=$1 name; shift
    [ "$fetched" = 0 ] || return 0
    for name; do cmp "$src/$name" "$dir/$name" || return 1; done
}
# no_wrong_name DIR: whatever has a final name is what it should be
no_wrong_name() {
    local name
    for name in image z-su d/inner; do
        [ ! -e "$1/$name" ] || cmp "$src/$name" "$1/$name" || return 1
    done
}
untouched() { grep -q '^uid' "$work/intruder.out" && ! grep '^uid' "$work/intruder.out" | grep -qv '^uid 65534 mode 600$'; }

# ---- temporary files are swapped while they are fetched

for name in image z-su; do
    theirs
    attack_files swap "$work/theirs" $name "$(stat -c %s "$src/$name")"
    node victim 1 "$home" "$work/theirs" --serve no
    node honest 2 "$home" "$work/own" --serve no
    victim_over
    check "the intruder has swapped the temporary file of $name" grep -q swapped "$work/intruder.out"
    check "swapped: the fetch of $name fails, or what it leaves is right (exit code $fetched)" \
        right_or_refused "$work/theirs" $name
    check "swapped: $name has its final name only if it is right" no_wrong_name "$work/theirs"
    check "swapped: the intruder's files got no owner and no set-id bits" untouched
    check "it is told that others can write there" grep -q 'other users can write to' "$(log victim)"
    note "$(tail -n 1 "$(log victim)")"
    exit_of honest 90
    check "a node beside it gets everything" same "$src" "$work/own"
    check "and is told nothing of other users" sh -c "! grep 'other users' '$(log honest)'"
    rm -rf "$work/own"
done

# ---- a fetch is resumed from a file of the intruder's, which stays mapped

# interrupted: a fetch that was killed in the middle of z-su; sets $part, its temporary file
interrupted() {
    theirs
    node victim 1 "$home" "$work/theirs" --serve no
    wait_for 60 has_part || fail "a fetch can be interrupted" "$(log victim)"
    end KILL victim
    cp "$part" "$part.copy" && chown nobody: "$part.copy"
}
part_of_su() { find "$work/theirs" -name '.xget-part-*' -size 24M | head -n 1; }
has_part() { part=$(part_of_su) && [ -n "$part" ] && [ "$(du -m "$part" | cut -f 1)" -ge 4 ]; }

interrupted
attack_files plant "$work/theirs" "$(basename "$part")" z-su
node victim 1 "$home" "$work/theirs" --serve no
victim_over
check "planted: the fetch fails, or what it leaves is right (exit code $fetched)" right_or_refused "$work/theirs" z-su image
check "planted: what has a final name is right" no_wrong_name "$work/theirs"
check "planted: the intruder's file got no owner and no set-id bits" untouched
note "$(summary victim)"

# Likewise while the resume goes on.
interrupted
rm -f "$part.copy"
node victim 1 "$home" "$work/theirs" --serve no
attack_files swap "$work/theirs" z-su "$(stat -c %s "$src/z-su")"
victim_over
check "swapped in a resume: the fetch fails, or what it leaves is right (exit code $fetched)" \
    right_or_refused "$work/theirs" z-su image
check "swapped in a resume: what has a final name is right" no_wrong_name "$work/theirs"
check "swapped in a resume: the intruder's files got no owner and no set-id bits" untouched
note "$(tail -n 1 "$(log victim)")"

# Likewise in a directory that root has taken over with all that is in it, while the intruder's mapping lives on.
interrupted
attack_files plant "$work/theirs" "$(basename "$part")" z-su
chown -R root: "$work/theirs"
node victim 1 "$home" "$work/theirs" --serve no
victim_over
check "taken from the intruder: the fetch succeeds" [ "$fetched" = 0 ]
check "taken from the intruder: all is right, and stays right" no_wrong_name "$work/theirs"
check "taken from the intruder: set-id bits are not on the mapped file" \
    sh -c "grep -q '^uid 0 mode 600$' '$work/intruder.out'"
note "$(summary victim)"

# ---- directories are swapped for links to a directory of root's

for name in dest dest/d; do
    theirs
    rm -rf "$work/precious" && mkdir "$work/precious"
    echo precious > "$work/precious/inner"
    mkdir "$work/theirs/dest" && chown nobody: "$work/theirs/dest"
    attack_files move "$work/theirs/dest" "$work/theirs/$name" "$work/precious"
    node victim 1 "$home" "$work/theirs/dest" --serve no
    victim_over
    check "$name moved: the intruder has done so" grep -q moved "$work/intruder.out"
    check "$name moved: nothing is written where the link leads" \
        [ "$(cat "$work"/precious/* "$work"/precious/.[!.]* 2> /dev/null)" = precious ]
    check "$name moved: the fetch fails (exit code $fetched)" [ "$fetched" != 0 ]
    note "$(tail -n 1 "$(log victim)")"
done

# A link that the intruder has made beforehand.
theirs
runuser -u nobody -- ln -s "$work/precious" "$work/theirs/dest" 2> /dev/null ||
    { ln -s "$work/precious" "$work/theirs/dest"; chown -h nobody: "$work/theirs/dest"; }
node victim 1 "$home" "$work/theirs/dest" --serve no
exit_of victim 90
check "a link of another user to a directory of root's is not followed" \
    grep -q 'a symbolic link of another user' "$(log victim)"
check "and nothing is written there" [ "$(ls -A "$work/precious")" = inner ]

end TERM master; unset 'pid[master]'

# ---- hashes are poisoned

# What a file was, with the identity of what it is: in a file system without write-back a mapping leaves no trace.
mkdir "$work/memory" && mount -t tmpfs xget-test "$work/memory"
mkdir "$work/memory/src" "$work/cache"
python3 - "$work/memory/src/file" "$work/memory/go" << 'EOF' &
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(fd, 1 << 20)
bytes_ = mmap.mmap(fd, 1 << 20)
bytes_[:5] = b"wrong"
end = time.monotonic() + 60
while not os.path.exists(sys.argv[2]) and time.monotonic() < end:
    time.sleep(0.05)
bytes_[:5] = b"right"
EOF
writer=$!
wait_for 20 test -s "$work/memory/src/file"
sleep 3                                     # only hashes of files that have settled are kept
generation() { "$xget" --manifest --cache "$1" "$work/memory/src" 2> "$work/manifest.log" | sha256sum; }
wrong=$(generation "$work/cache")
touch "$work/memory/go"; wait $writer
right=$(generation none)
check "the poison works where it is one's own" [ "$(generation "$work/cache")" = "$wrong" ]
check "it is poison" [ "$wrong" != "$right" ]
chown nobody: "$work"/cache/*
check "hashes of another user are not used" [ "$(generation "$work/cache")" = "$right" ]
check "and that is told" grep -q 'are not used: it belongs to another user' "$work/manifest.log"
generation "$work/cache" > /dev/null        # its own again
chown nobody: "$work/cache"
check "nor are any in a directory of another user" [ "$(generation "$work/cache")" = "$right" ]
check "which is told, too" grep -q 'are not used: other users can write to its directory' "$work/manifest.log"
umount "$work/memory"

# ---- one takes over from another user

# resident USER: serves on in the background with a state directory of that user
resident() {
    master 0 "$src" || { fail "the master starts" "$(log master)"; return 1; }
    rm -rf "$work/state" "$work/resident" && mkdir "$work/state" "$work/resident"
    chown "$1:" "$work/state" "$work/resident"
    start resident 1 setpriv --reuid "$1" --regid nogroup --clear-groups \
        "$xget" -n "$home" -p "$port" --serve forever --state "$work/state" . "$work/resident"
    wait_for 60 test -e "$work/state/state.json" || { fail "it serves on" "$(log resident)"; return 1; }
}
if resident nobody; then
    start next 1 "$xget" --take-over "$work/state"
    exit_of next 60
    check "root does not take over from another user (exit code $code)" [ "$code" = 6 ]
    check "and says so" grep -q 'it belongs to another user' "$(log next)"
    check "the other goes on serving" is_running resident
    end TERM master resident; unset 'pid[master]' 'pid[resident]'
fi
if resident root; then
    chmod 777 "$work/state/take-over"
    said=$(python3 "$attacks/destination.py" connect "$work/state/take-over")
    check "another user is offered nothing: $said" [ "$said" = "0 bytes, 0 descriptors" ]
    check "root's goes on serving" is_running resident
    end TERM master resident; unset 'pid[master]' 'pid[resident]'
fi
rm -rf "$work/state" && mkdir "$work/state"
attack_files offer "$work/state/take-over"
start next 1 "$xget" --take-over "$work/state"
exit_of next 60
exit_of intruder 30
check "descriptors that are not open for reading are refused (exit code of the one that was offered them)" \
    grep -q 'that is not open for reading' "$(log next)"
check "and not taken" grep -q refused "$work/intruder.out"

rm -rf "$work/theirs" "$work/precious" "$work/cache" "$src"
net_down
