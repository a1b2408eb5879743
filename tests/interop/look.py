"""What every client does with a served tree, and how that is judged; the clients are beside this.

Each line that is printed is `VERDICT TAB WHAT TAB TEXT`: the verdict is ok or bad, WHAT is a column of
the table in docs/interop.md.
"""

import hashlib
import os
import re

# A link in the test tree, and what it leads to.
LINK, TARGET, LED_TO = "etc/deep/to-file-1", "../file-1", "etc/file-1"


class Client:
    """What a client can do. Paths have no slash in front; what is refused is an exception."""

    def names(self, directory):
        """The names in a directory, and for each whether it is a directory."""
        raise NotImplementedError

    def size(self, path):
        raise NotImplementedError

    def mtime(self, path):
        """In whole seconds; None if the client does not tell."""
        return None

    def read(self, path):
        raise NotImplementedError

    def target(self, path):
        """A link's target; None if the client has no call for that."""
        return None

    # Every change that the client can ask for, by name.
    changes = {}


def say(good, what, text):
    print("ok" if good else "bad", what, " ".join(text.split()), sep="\t", flush=True)


def judged(what):
    """A check that returns a text if all is well and raises if not."""

    def around(check):
        def run(*args):
            try:
                say(True, what, check(*args))
            except Exception as error:  # whatever goes wrong is a finding
                say(False, what, f"{check.__name__.replace('_', ' ')}: {error!r}")

        return run

    return around


def local_paths(src):
    paths = {}
    for at, directories, files in os.walk(src):
        for name in directories + files:
            path = os.path.join(at, name)
            paths[os.path.relpath(path, src)] = path
    return paths


def is_file(path):
    return os.path.isfile(path) and not os.path.islink(path)


@judged("list")
def lists(client, src):
    found, todo = set(), [""]
    while todo:
        directory = todo.pop()
        for name, is_directory in client.names(directory):
            path = f"{directory}/{name}".lstrip("/")
            if path in found:
                raise ValueError(path + " is listed twice")
            found.add(path)
            if is_directory:
                todo.append(path)
    expected = local_paths(src).keys()
    if found != expected:
        raise ValueError(f"not listed {sorted(expected - found)[:5]}, not there {sorted(found - expected)[:5]}")
    return f"lists all {len(found)} entries"


@judged("read")
def reads(client, src):
    files = {path: local for path, local in local_paths(src).items() if is_file(local)}
    for path, local in files.items():
        with open(local, "rb") as file:
            if hashlib.sha256(client.read(path)).digest() != hashlib.sha256(file.read()).digest():
                raise ValueError(path + " differs")
    return f"reads {len(files)} files, all the same as the master's"


@judged("stat")
def stats(client, src):
    files = {path: local for path, local in local_paths(src).items() if is_file(local)}
    for path, local in files.items():
        expected = os.stat(local)
        size, mtime = client.size(path), client.mtime(path)
        if size != expected.st_size or mtime not in (int(expected.st_mtime), None):
            raise ValueError(f"{path}: {size} bytes, {mtime}")
    return f"is told size and time of {len(files)} files"


@judged("link")
def follows_a_link(client, src):
    target = client.target(LINK)
    if target != TARGET:
        raise ValueError(f"leads to {target!r}")
    path = os.path.normpath(os.path.join(os.path.dirname(LINK), target))
    with open(os.path.join(src, LED_TO), "rb") as file:
        if client.read(path) != file.read():
            raise ValueError(f"{path} differs")
    return "reads where a link leads, and what is there"


def fails(what, do, reasons):
    try:
        result = do()
    except Exception as error:
        if not re.search(reasons, repr(error), re.IGNORECASE):
            raise
        return f"is refused {what}: {error!r}"
    raise ValueError(f"{what}: {result!r}")


@judged("missing")
def is_told_what_is_not_there(client, path):
    return fails(path, lambda: client.size(path), r"No such file|Not a directory|NotFound|does not exist")


@judged("change")
def is_refused(client, name):
    # 30 is EROFS, which is all that a client of 9P2000.L may have of it.
    return fails(f"to {name}", client.changes[name], r"Operation not permitted|Read-only|\(30\)")


def look(client, src):
    lists(client, src)
    reads(client, src)
    stats(client, src)
    if client.target(LINK) is not None:
        follows_a_link(client, src)
    for path in ["etc/no-such-file", "no/such/file", "etc/file-2/x"]:
        is_told_what_is_not_there(client, path)
    for name in client.changes:
        is_refused(client, name)
