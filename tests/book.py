#!/usr/bin/env python3
"""What README.md and docs/ hold, as one book: its pages, links, and commands.

    tests/book.py check            prints what is wrong with pages, links and blocks
    tests/book.py script PAGE      the page's commands, as one shell script
    tests/book.py norun            the commands that no test runs, and why
    tests/book.py help PROGRAM     writes what its --help prints into docs/command.md

Every fenced block says what it is: `sh` is run by tests/docs.sh, in order, each page in a place of its own;
`sh norun: WHY` cannot be, and is only parsed; `text` and others are no commands. A comment that begins with
`<!-- sh` holds commands that are run and not shown.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUMMARY = ROOT / "docs/SUMMARY.md"
HELP_PAGE = ROOT / "docs/command.md"
HELP = re.compile(r"(<!-- xget --help -->\n```text\n)(.*?)(```\n)", re.S)

FENCE = re.compile(r"^( *)```(.*)$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(
    r"^\s*(?:[$#] )?(?:sudo )?(?:xget(?! manifest 1)|make|mount|apt-get|cargo|dracut|systemctl|minisign|wwctl|fuzz/run|tests/run|bench/run) "
)


def pages():
    return [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path != SUMMARY)]


def blocks(page):
    """(line, info, text) of each fenced block, and of each hidden one, whose info is `sh`."""
    info = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if info is None and fence:
            info, start, text, end = fence[2].strip(), number, [], "```"
        elif info is None and line.strip() == "<!-- sh":
            info, start, text, end = "sh", number, [], "-->"
        elif info is not None and line.strip() == end:
            yield start, info, "\n".join(text) + "\n"
            info = None
        elif info is not None:
            text.append(line)
    if info is not None:
        yield start, "unfinished", ""


def prose(page):
    """The lines outside of blocks."""
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def anchors(page):
    found = set()
    for _, line in prose(page):
        if heading := re.match(r"#+ (.*)", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def check():
    problems = []

    def wrong(page, line, what):
        problems.append(f"{page.relative_to(ROOT)}:{line}: {what}")

    listed = [(ROOT / "docs" / name).resolve() for _, line in prose(SUMMARY) for name in LINK.findall(line)]
    for page in listed:
        if not page.exists():
            wrong(SUMMARY, 1, f"there is no {page.name}")
    for page in pages()[1:]:
        if listed.count(page) != 1:
            wrong(SUMMARY, 1, f"{page.name} is listed {listed.count(page)} times")

    parts = (ROOT / "docs/testing.md").read_text()
    for test in sorted((ROOT / "tests").glob("*.sh")):
        if test.stem != "lib" and f"`{test.stem}`" not in parts:
            wrong(ROOT / "docs/testing.md", 1, f"the part {test.stem} is not listed")

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in pages():
        for line, text in prose(page):
            for link in LINK.findall(text):
                if re.match(r"[a-z]+:", link):
                    continue
                name, _, anchor = link.partition("#")
                there = (page.parent / name).resolve() if name else page
                if not there.exists():
                    wrong(page, line, f"{link}: there is no such file")
                elif page != ROOT / "README.md" and ROOT / "docs" not in there.parents:
                    wrong(page, line, f"{link} leads out of the book")
                elif anchor and anchor not in anchors(there):
                    wrong(page, line, f"{link}: there is no such heading")
            for target in re.findall(r"`make ([a-z-]+)[` ]", text):
                if target not in targets:
                    wrong(page, line, f"there is no make {target}")
            for path in re.findall(r"`((?:tests|src|docs|bench|lab|initramfs|static|fuzz|demo)/[\w./-]+)`", text):
                if not (ROOT / path).exists() and not path.startswith("static/xget"):
                    wrong(page, line, f"there is no {path}")
        for line, info, text in blocks(page):
            if info.split(":")[0] not in ("sh", "sh norun", "text", "conf", "json", "yaml"):
                wrong(page, line, f"a block of the kind {info or 'nothing'}")
            if info.startswith("sh"):
                parsed = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
                if parsed.returncode:
                    wrong(page, line, parsed.stderr.strip())
            elif command := next(filter(COMMAND.match, text.splitlines()), None):
                if page != HELP_PAGE:
                    wrong(page, line, f"looks like a command and is not run: {command.strip()}")
    return problems


def script(page):
    """Each block is preceded by its line, for whoever reads where it ended."""
    lines = ["set -eu -o pipefail"]
    for line, info, text in blocks(page):
        if info == "sh":
            lines += [f"echo '@@ {page.name}:{line}' >&2", text]
    return "\n".join(lines)


def norun():
    for page in pages():
        for line, info, _ in blocks(page):
            if info.startswith("sh norun"):
                yield f"{page.relative_to(ROOT)}:{line}: {info.partition(':')[2].strip() or 'nobody says why'}"


def write_help(program):
    text = subprocess.run([program, "--help"], text=True, capture_output=True, check=True).stdout
    page = HELP_PAGE.read_text()
    HELP_PAGE.write_text(HELP.sub(lambda found: found[1] + text + found[3], page))


def main(arguments):
    match arguments:
        case ["check"]:
            problems = check()
            print("\n".join(problems))
            return 1 if problems else 0
        case ["script", page]:
            print(script(pathlib.Path(page).resolve()))
        case ["norun"]:
            print("\n".join(norun()))
        case ["help", program]:
            write_help(program)
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
