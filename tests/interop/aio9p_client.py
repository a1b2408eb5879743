"""Looks at a served tree with aio9p: aio9p_client.py PORT DIALECT DIR

Of aio9p 0.3.3 this uses what works: its p9_open and p9_create send messages of other types, and p9_read
takes a reply for that of an open; those messages are made here of its own fields. It overlooks a reply
without fields until the next one comes, so that nothing is clunked.
"""

import asyncio
import itertools
import sys

import aio9p.constant as c
import look
from aio9p.dialect.client.Py9P2000 import Py9P2000Client
from aio9p.dialect.client.Py9P2000u import Py9P2000uClient
from aio9p.helper import extract, extract_bytefields, mkbytefields, mkfield
from aio9p.stat import Py9P2000Stat, Py9P2000uStat

port, dialect, src = int(sys.argv[1]), sys.argv[2], sys.argv[3]
unix = dialect == "9P2000.u"
ROOT, NOFID = mkfield(0, 4), mkfield(0xFFFFFFFF, 4)
MSIZE = 0xFFFF
DMDIR = 0x80000000


def error(client, kind, fields, body):
    """In place of its own, which cannot be made as it makes it."""
    return OSError(extract_bytefields(body, 0, 1)[0].decode())


class Aio9p(look.Client):
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.fids = itertools.count(1)
        self.client = self.wait(self.connect())
        self.changes = {
            "write": lambda: self.open(self.walk("etc/file-1"), 1),
            "create": lambda: self.create(self.walk("etc")),
            "rename": lambda: self.rename(self.walk("etc/file-1")),
            "remove": lambda: self.ask(self.client.remove(self.walk("etc/file-1"))),
        }

    def wait(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    async def connect(self):
        kind = Py9P2000uClient if unix else Py9P2000Client
        kind.errparser = error
        client = kind({"host": "127.0.0.1", "port": port})
        await client.connect({"host": "127.0.0.1", "port": port})
        await client.negotiate(maxsize=MSIZE)
        if unix:
            await client.attach_u(ROOT, NOFID, b"nobody", b"", 0xFFFFFFFF)
        else:
            await client.attach(ROOT, NOFID, b"nobody", b"")
        return client

    def ask(self, coroutine):
        try:
            return self.wait(coroutine)
        finally:
            # It marks a tag as answered and never takes that back.
            for event in self.client._connection._event.values():
                event.clear()

    def message(self, kind, *fields):
        return self.ask(self.client.message((kind, sum(map(len, fields)), fields)))[1]

    def walk(self, path):
        names = [name.encode() for name in path.split("/") if name]
        fid = mkfield(next(self.fids), 4)
        if len(self.ask(self.client.walk(ROOT, fid, names))) != len(names):
            raise FileNotFoundError(path)
        return fid

    def open(self, fid, mode):
        self.message(c.TOPEN, fid, mkfield(mode, 1))

    def create(self, fid):
        extension = mkbytefields(b"")[1] if unix else ()
        self.message(c.TCREATE, fid, *mkbytefields(b"new")[1], mkfield(0o644, 4), mkfield(1, 1), *extension)

    def rename(self, fid):
        stat = (Py9P2000uStat if unix else Py9P2000Stat)(p9name=b"new", p9qid=b"\xff" * 13)
        self.ask(self.client.wstat(fid, stat))

    def read(self, path):
        fid = self.walk(path)
        self.open(fid, 0)
        content = b""
        while True:
            body = self.message(c.TREAD, fid, mkfield(len(content), 8), mkfield(MSIZE - 24, 4))
            if not (part := body[4 : 4 + extract(body, 0, 4)]):
                return content
            content += part

    def names(self, directory):
        records = self.read(directory)
        while records:
            entry = Py9P2000Stat.from_bytes(records, 0)
            yield entry.p9name.decode(), bool(entry.p9mode & DMDIR)
            records = records[2 + extract(records, 0, 2) :]

    def stat(self, path):
        fid = self.walk(path)
        return self.ask(self.client.stat_u(fid) if unix else self.client.stat(fid))

    def size(self, path):
        return self.stat(path).p9length

    def mtime(self, path):
        return self.stat(path).p9mtime

    def target(self, path):
        if unix:
            return self.stat(path).p9u_extension.decode()
        return self.read(path).decode()


look.look(Aio9p(), src)
