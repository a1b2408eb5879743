#!/bin/bash
# minisign's signatures and pinned hashes: a node that has a key fetches what that key has signed, from
# the master or from another node, and nothing else.
. "$(dirname "$0")/lib.sh"
need minisign:minisign b3sum:b3sum
need_xget
port=20731

src=$work/src
mkdir "$src"
small_tree "$src"
random_file "$src/image" 3M

# one and two are trusted, other is not.
for key in one two other; do minisign -G -W -p "$work/$key.pub" -s "$work/$key.sec"; done > "$work/keys.log"
one=$work/one.pub two=$work/two.pub other=$work/other.pub
key_of() { tail -n 1 "$1"; }
# With the zeros that minisign leaves out
id_of() { printf '%016X' "0x$(sed -n '1s/.* //p' "$1")"; }

manifest=$work/manifest signature=$work/manifest.minisig
describe_source() { "$xget" --manifest -q --cache none "$src" > "$manifest" 2> "$work/manifest.log"; }

# sign KEY [OPTION...]: the present state; the file appears in one piece
sign() {
    local key=$1; shift
    describe_source && minisign -S -s "$work/$key.sec" -m "$manifest" -x "$signature.new" "$@" &&
        mv "$signature.new" "$signature"
} > "$work/sign.log" 2>&1 < /dev/null

# serve [OPTION...]: starts a master that looks at tree and signature every second
serve() {
    master - "$src" --rescan 1 --signature "$signature" "$@" ||
        { fail "the master starts" "$(log master)"; finish; }
}

# get NAME PORT OPTION...: a node without end of patience fetches all; sets $code
get() {
    local name=$1 server=$2; shift 2
    start "$name" - "$xget" -n "127.0.0.1:$server" -q -D 1 --serve no -r forever "$@" . "$work/$name"
    exit_of "$name" 60
}

# believes TEXT NAME PORT OPTION...
believes() {
    local text=$1 name=$2; shift
    get "$@"
    if [ $code = 0 ] && same "$src" "$work/$name" > /dev/null; then pass "$text"; else
        fail "$text (exit code $code)" "$(log "$name")"; fi
}

# refuses TEXT WORDS NAME PORT OPTION...: at once, saying so, and with nothing written
refuses() {
    local text=$1 words=$2 name=$3; shift 2
    get "$@"
    if [ $code = 8 ] && grep -q "$words" "$(log "$name")" && ! grep -q 'retrying' "$(log "$name")" &&
        [ ! -e "$work/$name" ]; then pass "$text"; else
        fail "$text (exit code $code)" "$(log "$name")"; fi
    note "$(tail -n 1 "$(log "$name")")"
}

# master_says SECONDS WORDS
master_says() { wait_for "$1" grep -q "$2" "$(log master)"; }

# ---- keys

sign one
serve --key "$one" --key "$two"
check "the master says who has signed" master_says 20 "is signed with key $(id_of "$one")"
believes "the key that signed, in a file" file $port --key "$one"
believes "the key itself" itself $port --key "$(key_of "$one")"
believes "one of two keys" two-keys $port --key "$other" --key "$one"
cat "$other" "$one" > "$work/both.pub"
believes "one of two keys in a file" key-file $port --key "$work/both.pub"
believes "no key: nothing is asked" no-key $port
refuses "another key" "signed with key $(id_of "$one"), expected key $(id_of "$other")" \
    other-key $port --key "$other"
get no-key-at-all $port --key RWnonsense
check "what is neither a key nor a file is a bad command line" [ $code = 2 ]
"$xget" -n 127.0.0.1:$port -q -b --key "$other" . "$work/background" 2> "$work/background.log"
check "the exit code is the same in the background" [ $? = 8 ]

# ---- hashes

hash=$(b3sum --no-names "$manifest")
wrong_hash=$(echo wrong | b3sum --no-names)
believes "the pinned hash" hash $port --hash "$hash"
refuses "another hash" "its generation is $hash, expected $wrong_hash" other-hash $port --hash "$wrong_hash"
believes "key and hash" key-and-hash $port --key "$one" --hash "$hash"
refuses "the right key and another hash" "its generation is $hash, expected $wrong_hash" key-other-hash $port \
    --key "$one" --hash "$wrong_hash"
refuses "another key and the right hash" "expected key" other-key-hash $port \
    --key "$other" --hash "$hash"

# ---- from node to node

start second - "$xget" -n "127.0.0.1:$port" -p $((port + 1)) -q -D 1 --serve forever . "$work/second"
all_whole 60 second || fail "a second node gets its files" "$(log second)"
end TERM master
believes "a third node with the key, from a second one without, with the master gone" \
    third $((port + 1)) --key "$one"
refuses "another key, at the second node" "signed with key $(id_of "$one")" \
    third-other $((port + 1)) --key "$other"
end TERM second

# ---- wrong signatures

# A key with the id of the right one, and the right one's id on what it signs.
sign other
decoded() { sed -n "$2p" "$1" | base64 -d; }
{ decoded "$one" 2 | head -c 10; decoded "$other" 2 | tail -c 32; } | base64 -w 0 > "$work/forged.pub"
forged=$({ decoded "$signature" 2 | head -c 2; decoded "$one" 2 | head -c 10 | tail -c 8
    decoded "$signature" 2 | tail -c 64; } | base64 -w 0)
sed -i "2s|.*|$forged|" "$signature"
serve --key "$work/forged.pub"
check "a forger's master serves a forged signature" master_says 20 'is signed with key'
refuses "a forged signature" 'or is forged' forged $port --key "$one"
end TERM master

sign one
sed -i '3s/file:/File:/' "$signature"
serve --key "$one"
check "the master says that a signature was tampered with" \
    grep "does not contain a valid signature of generation .* or is forged" "$(log master)"
refuses "a signature that does not fit is not served" "it has no signature, expected key $(id_of "$one")" \
    tampered $port --key "$one"
end TERM master

rm "$signature"
serve --key "$one"
check "the master says that the signature is missing" \
    grep 'does not contain a valid signature of generation .*: No such file' "$(log master)"
refuses "no signature" "it has no signature" missing $port --key "$one"
sign one -l
check "one that comes later is served" master_says 20 'is signed with key'
believes "a signature of minisign's older kind" older $port --key "$one"

# ---- a new state of the tree

echo changed > "$src/etc/file-7"
check "with the tree changed the master says that the signature does not fit" master_says 30 'or is forged'
refuses "a state that is not signed yet" "it has no signature" unsigned $port --key "$one"
end TERM master

sign two
serve --key "$one" --key "$two"
believes "a state that is signed by a new key, beside the old one" new-key $port --key "$one" --key "$two"
refuses "the new key where only the old one is known" "signed with key $(id_of "$two")" \
    old-key $port --key "$one"
end TERM master

# In the middle of a fetch.
sign one
serve --key "$one" --max-upload 300K
start slow - "$xget" -n "127.0.0.1:$port" -q -D 1 --serve no -r forever --key "$one" . "$work/slow"
wait_for 20 test -e "$work/slow"
echo "changed again" > "$src/etc/file-8"
exit_of slow 60
check "a node in the middle of a fetch does not go over to a state that is not signed (exit code $code)" \
    sh -c "[ $code = 8 ] && grep -q 'it has no signature' '$(log slow)'"
sign one
signed_again() { [ "$(grep -c 'is signed with key' "$(log master)")" -ge 2 ]; }
check "once that is signed, its signature is served" wait_for 20 signed_again
get slow $port --key "$one"
check "and fetched, with what was there" same "$src" "$work/slow"

end TERM master

# ---- an initramfs

# boots NAME HASH: `xget --boot URL` where the kernel command line asks for that hash; sets $code
boots() {
    echo "rd.xget.hash=$2 rd.xget.net=kernel rd.xget.serve=no rd.xget.timeout=30" > "$work/$1.cmdline"
    start "$1" 1 unshare -m sh -c "mount --bind '$work/$1.cmdline' /proc/cmdline &&
        mount -t tmpfs run /run && exec '$xget' --boot 'xget://$(ip_of 0):$port/image'"
    exit_of "$1" 60
}
if [ "$(id -u)" = 0 ] && net_up 1; then
    master 0 "$src" || fail "the master starts" "$(log master)"
    describe_source
    boots right-hash "$(b3sum --no-names "$manifest")"
    check "an initramfs gets what its kernel command line pins" \
        [ "$code $(cat "$work/right-hash.out")" = "0 /run/xget/files/image" ]
    boots wrong-hash "$wrong_hash"
    check "and else xget --boot ends with the code of the fetch" [ "$code" = 8 ]
    note "$(tail -n 2 "$(log wrong-hash)")"
    end TERM master
else
    skip "an initramfs that is told a hash" "run it as root"
fi
finish
