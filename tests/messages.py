#!/usr/bin/env python3
"""Whether docs/logs.md lists every message that the program can print, and no other.

    tests/messages.py              prints what is missing on either side
    tests/messages.py list         prints the messages of the source, a line each

A message is a string literal of the source with at least three words, or one that is logged or displayed; the
action of an `Error::file` or `Error::system` stands for "cannot ACTION PATH: REASON". Its {placeholders} stand
for any text. The page lists messages as code in the first column of its tables.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/logs.md"

# Text that is no message: help, tables, protocol lines, and what only tests print.
NOT_MESSAGES = re.compile(
    r"(^|/)(tests?|testing|sim|fuzz(ing)?|conformance|completions|metrics|table|index|answer|pair|swarm|errno)(/|\.rs$)|cli/(help|options)\.rs$"
)
# Lines of the protocol and of traces, the patterns of composed messages, and what no user can cause.
PROTOCOL = re.compile(
    r"^(xget (manifest|hand-over) 1|\w+=\{.*|<- .*|-> .*|\{way\} .*| ?mode .*|\{\} bytes|end|,mtu=.*|cannot \{(what|action)\}( \{path\})?: \{\}"
    r"|fetching requires -n HOST.*|no chunk of this file is held|the file was replaced|the packet is as long as .*)$"
)
LITERAL = re.compile(r"(?<!['\\])\"((?:[^\"\\]|\\.)*)\"", re.S)
# What stands before a literal that is never printed, and before an action.
ACTION = re.compile(r"(expect\(|reason = |unreachable!\(|concat!\(|\bcfg\w*\()\s*$")
FILE, SYSTEM = re.compile(r"Error::file\(\s*$"), re.compile(r"(Error::system\(|action:) *\s*$")
LOGGED = re.compile(r"\.(error|warning|notice|info)\((\s*(format_args|format)!\()?\s*$|write!\(f,\s*$|f\.write_str\(\s*$")
PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def code(text):
    """The source without comments and without the tests at its end."""
    text = re.split(r"#\[cfg\(test\)\]\n(?:pub\(crate\) )?mod tests \{", text)[0]
    return re.sub(r"^\s*//.*$", "", text, flags=re.M)


def messages():
    """(message, file) of each."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        name = str(path.relative_to(ROOT))
        if NOT_MESSAGES.search(name):
            continue
        text = code(path.read_text())
        for match in LITERAL.finditer(text):
            before = text[max(0, match.start() - 60) : match.start()]
            words = re.sub(r"\\\n\s*", "", match[1]).replace('\\"', '"')
            if FILE.search(before) or SYSTEM.search(before):
                words = f"cannot {words} {{}}: {{}}" if FILE.search(before) else f"cannot {words}: {{}}"
            static = PLACEHOLDER.sub("", words)
            logged = LOGGED.search(before)
            least = 1 if logged else 2
            if ACTION.search(before) or PROTOCOL.match(words) or "\n" in words or "\\n" in words or len(re.findall(r"[A-Za-z]{2,}", static)) < least:
                continue
            if logged or len(words.split()) >= 3:
                found.setdefault(words.strip(), name)
    return found


def pattern(message):
    """What it looks like in the page, where something stands for each placeholder."""
    parts = [re.escape(part) for part in PLACEHOLDER.split(message)]
    return re.compile(r".+".join(parts).strip())


def listed():
    """(line, message) of the first column of each table."""
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if line.startswith("| `"):
            cell = re.split(r"(?<!\\) \| ", line[2:])[0]
            yield from ((number, text.replace("\\|", "|")) for text in re.findall(r"`([^`]+)`", cell))


def main():
    found = messages()
    if sys.argv[1:] == ["list"]:
        for message, name in sorted(found.items(), key=lambda pair: (pair[1], pair[0])):
            print(f"{name}\t{message}")
        return
    rows = list(listed())
    patterns = {message: pattern(message) for message in found}
    problems = [
        f"{name}: not in docs/logs.md: {message}"
        for message, name in found.items()
        if not any(patterns[message].search(row) for _, row in rows)
    ]
    problems += [
        f"docs/logs.md:{number}: no message of the source: {row}"
        for number, row in rows
        if not any(pattern.search(row) for pattern in patterns.values())
    ]
    print("\n".join(problems))
    sys.exit(bool(problems))


main()
