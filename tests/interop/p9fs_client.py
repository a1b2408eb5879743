"""Looks at a served tree with p9fs: p9fs_client.py PORT DIALECT DIR"""

import sys

import look
from p9fs import P9FileSystem

port, dialect, src = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class P9fs(look.Client):
    def __init__(self):
        self.fs = P9FileSystem(host="127.0.0.1", port=port, username="nobody", version=dialect, aname="")
        self.changes = {
            "write": lambda: self.put("etc/file-1"),
            "create": lambda: self.put("new"),
            "remove": lambda: self.fs.rm_file("etc/file-1"),
            "make a directory": lambda: self.fs.mkdir("newdir"),
        }

    def put(self, path):
        with self.fs.open(path, "wb") as file:
            file.write(b"overwritten")

    def names(self, directory):
        for entry in self.fs.ls(directory, detail=True):
            yield entry["name"].strip("/").rpartition("/")[2], entry["type"] == "directory"

    def size(self, path):
        return self.fs.info(path)["size"]

    def mtime(self, path):
        mtime = self.fs.info(path)["mtime"]
        # With nanoseconds beside it in 9P2000.L.
        return mtime[0] if isinstance(mtime, tuple) else int(mtime)

    def read(self, path):
        with self.fs.open(path, "rb") as file:
            return file.read()

    def target(self, path):
        if dialect == "9P2000":
            return self.read(path).decode()
        if dialect == "9P2000.L":
            return None
        # It has no call for it, but its stat has the field.
        client, fid = self.fs.client, 4242
        client._walk(client.ROOT, fid, path.split("/"))
        extension = client._stat(fid).stat[0].extension
        client._clunk(fid)
        return extension.decode()


look.look(P9fs(), src)
