"""Looks at a served tree with python-9p: python9p_client.py PORT DIALECT DIR"""

import sys

import look
import py9p

port, src = int(sys.argv[1]), sys.argv[3]
FID = 1


class Python9p(look.Client):
    def __init__(self):
        self.client = py9p.Client.connect_tcp("127.0.0.1", port)
        self.client.negotiate()
        self.client.attach(fid=0, uname="nobody")
        self.changes = {
            "write": lambda: self.at("etc/file-1", lambda: self.client.open(FID, 1)),
            "truncate": lambda: self.at("etc/file-1", lambda: self.client.open(FID, 0x10)),
            "create": lambda: self.at("etc", lambda: self.client.create(FID, "new", 0o644, 1)),
            "remove": self.remove,
        }

    def at(self, path, do):
        names = [name for name in path.split("/") if name]
        if len(self.client.walk(0, FID, names)) != len(names):
            raise FileNotFoundError(path)
        try:
            return do()
        finally:
            self.client.clunk(FID)

    def remove(self):
        # This ends the fid, whatever comes of it.
        self.client.walk(0, FID, "etc/file-1")
        self.client.remove(FID)

    def read(self, path):
        return self.at(path, self.read_on)

    def read_on(self):
        self.client.open(FID, 0)
        content = b""
        while part := self.client.read(FID, offset=len(content)):
            content += part
        return content

    def names(self, directory):
        records = self.read(directory)
        while records:
            size = 2 + int.from_bytes(records[:2], "little")
            entry = py9p.Dir.from_bytes(records[:size])
            yield entry.name, bool(entry.mode & py9p.DMDIR)
            records = records[size:]

    def stat(self, path):
        return self.at(path, lambda: self.client.stat(FID))

    def size(self, path):
        return self.stat(path).length

    def mtime(self, path):
        return self.stat(path).mtime

    def target(self, path):
        return self.read(path).decode()


look.look(Python9p(), src)
