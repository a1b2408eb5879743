//! What completes the command in a shell, made of the table of options.

use std::fmt::Write as _;

use super::command::Shell;
use super::options::{Kind, OptionSpec, options};

/// What `--completions` prints.
pub fn completions(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// What can be proposed after an option.
enum Value {
    Files,
    Hosts,
    /// These, separated by spaces; nothing where there is none.
    Words(String),
}

/// What follows an option, judged by what the help calls it; None if nothing does.
fn value(option: &OptionSpec) -> Option<(&'static str, Value)> {
    let Kind::Value { metavar, .. } = option.kind else { return None };
    let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    let value = if metavar.contains("DIR") || metavar.contains("FILE") {
        Value::Files
    } else if metavar.starts_with("HOST") {
        Value::Hosts
    } else {
        Value::Words(metavar.split('|').filter(is_word).collect::<Vec<_>>().join(" "))
    };
    Some((metavar, value))
}

/// The help of an option in one line.
fn description(option: &OptionSpec) -> String {
    option.help.replace('\n', " ")
}

/// `-m` and `--max`
fn names(option: &OptionSpec) -> impl Iterator<Item = String> {
    option.short.map(|c| format!("-{c}")).into_iter().chain([format!("--{}", option.long)])
}

fn bash() -> String {
    // bash takes = for a word of its own.
    let mut text = String::from(
        "# bash completion for xget, printed by xget --completions bash

_xget() {
    local word=$2 before=$3
    [ \"$word\" = = ] && word=
    [ \"$before\" = = ] && before=${COMP_WORDS[COMP_CWORD - 2]}
    case $before in
",
    );
    for option in options() {
        let Some((_, value)) = value(option) else { continue };
        let proposed = match value {
            Value::Files => "-f".to_owned(),
            Value::Hosts => "-A hostname".to_owned(),
            Value::Words(words) => format!("-W '{words}'"),
        };
        let names = names(option).collect::<Vec<_>>().join(" | ");
        let _ = writeln!(text, "        {names}) set -- {proposed} ;;");
    }
    let all = options().flat_map(names).collect::<Vec<_>>().join(" ");
    let _ = write!(
        text,
        "        *)
            case $word in
                -*) set -- -W '{all}' ;;
                *) set -- -f ;;
            esac
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen \"$@\" -- \"$word\")
}}

complete -o filenames -F _xget xget
"
    );
    text
}

fn zsh() -> String {
    let mut text = String::from(
        "#compdef xget
# zsh completion for xget, printed by xget --completions zsh

_arguments -s \\
",
    );
    for option in options() {
        let (short_end, long_end, value) = match value(option) {
            None => ("", "", String::new()),
            Some((name, value)) => {
                let proposed = match value {
                    Value::Files => "_files".to_owned(),
                    Value::Hosts => "_hosts".to_owned(),
                    Value::Words(words) if words.is_empty() => " ".to_owned(),
                    Value::Words(words) => format!("({words})"),
                };
                ("+", "=", format!(":{}:{proposed}", escaped(name, ":[]\\")))
            }
        };
        let said = escaped(&description(option), ":[]\\");
        for name in names(option) {
            let end = if name.starts_with("--") { long_end } else { short_end };
            let _ = writeln!(text, "    {} \\", quoted(&format!("*{name}{end}[{said}]{value}")));
        }
    }
    text + "    '*:path:_files'\n"
}

fn fish() -> String {
    let mut text =
        String::from("# fish completion for xget, printed by xget --completions fish\n\n");
    for option in options() {
        let short = option.short.map_or_else(String::new, |c| format!(" -s {c}"));
        let takes = match value(option) {
            None => String::new(),
            Some((_, Value::Files)) => " -r -F".to_owned(),
            Some((_, Value::Hosts)) => " -x -a '(__fish_print_hostnames)'".to_owned(),
            Some((_, Value::Words(words))) => format!(" -x -a '{words}'"),
        };
        let said = escaped(&description(option), "'\\");
        let _ = writeln!(text, "complete -c xget{short} -l {}{takes} -d '{said}'", option.long);
    }
    text
}

/// With a backslash before each of these.
fn escaped(text: &str, these: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if these.contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// As one word of a Bourne shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_completed_in_every_shell() {
        for option in options() {
            let long = option.long;
            assert!(bash().contains(&format!(" --{long}")), "bash: {long}");
            assert!(zsh().contains(&format!("'*--{long}")), "zsh: {long}");
            assert!(fish().contains(&format!(" -l {long} ")), "fish: {long}");
            if let Some(short) = option.short {
                assert!(bash().contains(&format!(" -{short} ")), "bash: {short}");
                assert!(zsh().contains(&format!("'*-{short}")), "zsh: {short}");
                assert!(fish().contains(&format!(" -s {short} -l {long} ")), "fish: {short}");
            }
        }
    }

    #[test]
    fn no_quote_of_a_help_ends_a_word() {
        assert_eq!(quoted("xget's"), r"'xget'\''s'");
        assert_eq!(escaped("xget's", "'\\"), r"xget\'s");
    }
}
