#!/bin/bash
# What completes the options of xget, in the shells themselves: every option of --help is proposed, and no other,
# and files, hosts and words where an option takes those.
. "$(dirname "$0")/lib.sh"
need bash:bash zsh:zsh fish:fish
need_xget

mkdir "$work/files" "$work/zsh"
: > "$work/files/an image"
make -s -C "$repo" PROGRAM="$xget" DESTDIR="$work" PREFIX=/usr ZSH_FUNCTIONS=/zsh install-completions ||
    { fail "make install-completions"; finish; }
completions=$work/usr/share/bash-completion/completions/xget

# in_bash WORD...: what is proposed for the last of them
in_bash() {
    bash -c '
        cd "$1" && . "$2" && shift 2
        COMP_WORDS=(xget "$@") COMP_CWORD=$#
        _xget xget "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf "%s\n" "${COMPREPLY[@]}"
    ' - "$work/files" "$completions" "$@" | sort
}

# in_fish WORD...: the same
in_fish() {
    (cd "$work/files" && HOME=$work fish --no-config -c '
        source $argv[1]
        complete -C "xget $argv[2..]"
    ' "$work/usr/share/fish/vendor_completions.d/xget.fish" "$@") | cut -f 1 | sed 's/^--[a-z-]*=//' | sort
}

# in_zsh WORD...: the same. Its completion works in a terminal only: one is made for it, in which a function of
# compadd's name, by which all is proposed, prints what that is.
in_zsh() {
    (cd "$work/files" && zsh -f -c '
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell "source $1"
        zpty -r -m shell output "*READY*"
        zpty -w -n shell "xget ${(j: :)@[2,-1]}"$'\''\t'\''
        zpty -r -m shell output "*END*"
        print -r -- "$output"
    ' - "$work/zsh/setup" "$@") | tr -d '\r' | sed -n 's/\\//g; s/^GOT //p' | sort -u
}
cat > "$work/zsh/setup" << END
PROMPT= fpath=($work/zsh \$fpath)
autoload -U compinit && compinit -u -d $work/zsh/dump
bindkey '^I' complete-word
zstyle ':completion:*' insert-tab false
compadd() {
    # With one of these it only collects.
    if [[ \${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
        local -a proposed
        builtin compadd -O proposed "\$@"
        print -rl -- '' "GOT "\${^proposed}
    fi
    builtin compadd "\$@"
}
finished() { print END; exit }
comppostfuncs=(finished)
print REA''DY
END

for shell in bash zsh fish; do
    in_shell=in_$shell
    # Shells propose short options in ways of their own: -m alone, or among the long ones.
    proposed() { $in_shell -- | grep -e '^--' | sed 's/=$//' ; }
    check "$shell proposes every option, and no other" diff <(options_of_help | grep -e '^--') <(proposed)
    check "$shell proposes those that begin as what is written" test "$($in_shell --re | tr -d = | sort | tr '\n' ' ')" = "--rehash --rescan --retries --retry-wait "
    check "$shell proposes files to serve" test "$($in_shell '')" = "an image"
    check "$shell proposes files to an option that takes one" test "$($in_shell --signature '')" = "an image"
    check "$shell proposes the words that an option takes" test "$($in_shell --serve '' | tr '\n' ' ')" = "forever no "
    check "$shell proposes nothing for a number" test -z "$($in_shell --port '')"
done
finish
