"""Looks at a served tree with a program that does one thing a run: tool_client.py ixpc|gvisor TOOL PORT DIALECT DIR

Each run is a connection of its own.
"""

import os
import subprocess
import sys

import look

kind, tool, port, dialect, src = sys.argv[1:]


def run(*arguments):
    done = subprocess.run([tool, *arguments], input=b"x", capture_output=True, timeout=20)
    if done.returncode != 0:
        raise OSError(done.stderr.decode().strip())
    return done.stdout


class Ixpc(look.Client):
    """libixp's own program. It tells no times, and dies without USER."""

    def __init__(self):
        os.environ.update(IXP_ADDRESS=f"tcp!127.0.0.1!{port}", USER="nobody")
        self.changes = {
            "write": lambda: run("write", "/etc/file-1"),
            "create": lambda: run("create", "/etc/new"),
            "remove": lambda: run("remove", "/etc/file-1"),
        }

    def names(self, directory):
        for line in run("ls", "/" + directory).decode().splitlines():
            yield line.rstrip("/"), line.endswith("/")

    def size(self, path):
        return int(run("ls", "-ld", "/" + path).split()[3])

    def read(self, path):
        return run("read", "/" + path)

    def target(self, path):
        return self.read(path).decode()


class GVisor(look.Client):
    def __init__(self):
        inside = ["create", "mkdir", "symlink"]
        self.changes = {what: lambda what=what: run(port, what, "etc/new") for what in inside}
        existing = ["write", "truncate", "rename", "hardlink", "remove"]
        self.changes |= {what: lambda what=what: run(port, what, "etc/file-1") for what in existing}

    def names(self, directory):
        for line in run(port, "ls", directory).decode().splitlines():
            kind, name = line.split(" ", 1)
            if name not in (".", ".."):
                yield name, kind == "d"

    def size(self, path):
        return int(run(port, "stat", path).split()[0])

    def mtime(self, path):
        return int(run(port, "stat", path).split()[1])

    def read(self, path):
        return run(port, "read", path)

    def target(self, path):
        return run(port, "link", path).decode()


look.look({"ixpc": Ixpc, "gvisor": GVisor}[kind](), src)
