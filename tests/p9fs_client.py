"""Reads a served tree with p9fs and compares: p9fs_client.py PORT DIALECT DIR

Prints lines `ok|bad TAB what TAB text` for interop.sh; an ok text begins with the matrix entry.
"""

import hashlib
import os
import sys

from p9fs import P9FileSystem

port, dialect, src = int(sys.argv[1]), sys.argv[2], sys.argv[3]
fs = P9FileSystem(host="127.0.0.1", port=port, username="nobody", version=dialect, aname="")


def say(good, what, text):
    print("ok" if good else "bad", what, text, sep="\t", flush=True)


def attempt(what, action, verdict):
    """Runs `action`; `verdict` makes (good, text) of its result, or of the exception."""
    try:
        result = action()
    except Exception as error:
        result = error
    say(verdict(result)[0], what, verdict(result)[1].replace("\n", " "))


def local_entries():
    """Paths of everything below src, as p9fs writes them, with the local ones."""
    found = {}
    for at, dirs, files in os.walk(src):
        for name in dirs + files:
            path = os.path.join(at, name)
            found[os.path.relpath(path, src)] = path
    return found


def listing():
    found, todo = set(), [""]
    while todo:
        for entry in fs.ls(todo.pop(), detail=True):
            path = entry["name"].strip("/")
            if path in found:
                raise RuntimeError(path + " is listed twice")
            found.add(path)
            if entry["type"] == "directory":
                todo.append(path)
    return found


def read_all():
    """How many files there are, and which of them differ."""
    files = {p: l for p, l in local_entries().items() if os.path.isfile(l) and not os.path.islink(l)}
    differ = []
    for remote, local in files.items():
        with fs.open(remote, "rb") as f:
            theirs = hashlib.sha256(f.read()).digest()
        with open(local, "rb") as f:
            if theirs != hashlib.sha256(f.read()).digest():
                differ.append(remote)
    return len(files), differ


def listed(result):
    if isinstance(result, Exception):
        return False, f"lists: {result!r}"
    missing, extra = local_entries().keys() - result, result - local_entries().keys()
    if missing or extra:
        return False, f"lists: missing {sorted(missing)[:5]}, not there {sorted(extra)[:5]}"
    return True, f"yes: lists all {len(result)} entries"


def compared(result):
    if isinstance(result, Exception):
        return False, f"reads: {result!r}"
    count, differ = result
    if differ:
        return False, f"reads {count} files, {len(differ)} differ, as {differ[:3]}"
    return True, f"yes: reads {count} files, all the same as the master's"


def refused(what):
    def verdict(result):
        return isinstance(result, Exception), f"refused: {what} is refused: {result!r}"
    return verdict


def write():
    with fs.open("etc/file-1", "wb") as f:
        f.write(b"overwritten")


def create():
    with fs.open("new", "wb") as f:
        f.write(b"new")


attempt("list", listing, listed)
attempt("read", read_all, compared)
attempt("gone", lambda: fs.info("etc/no-such-file"), refused("what is not there"))
attempt("gone", lambda: fs.info("no/such/file"), refused("what is below nothing"))
attempt("gone", lambda: fs.info("etc/file-2/x"), refused("what is below a file"))
attempt("write", write, refused("writing"))
attempt("write", create, refused("creating"))
attempt("write", lambda: fs.rm_file("etc/file-1"), refused("removing"))
attempt("write", lambda: fs.mkdir("newdir"), refused("making a directory"))
