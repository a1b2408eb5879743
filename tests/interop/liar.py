"""A server of 9P2000.L whose files are not what it says: liar.py PORT

`names` is a directory with the entry `../x`, `short` ends before its size, `changes` has another time
each time, and `endless` is a directory that goes on.
"""

import socket
import struct
import sys
import threading

DIRECTORIES = {"", "names", "endless"}
FILES = {"short", "changes"}
SIZE = 300_000


def text(value):
    return struct.pack("<H", len(value)) + value.encode()


def qid(path):
    return struct.pack("<BIQ", 0x80 if path in DIRECTORIES else 0, 1, sum(path.encode()))


class Connection:
    def __init__(self, stream):
        self.stream = stream
        self.fids = {}
        self.looked = 0

    def exactly(self, count):
        received = b""
        while len(received) < count:
            part = self.stream.recv(count - len(received))
            if not part:
                raise EOFError
            received += part
        return received

    def serve(self):
        try:
            while True:
                size, kind, tag = struct.unpack("<IBH", self.exactly(7))
                body = self.exactly(size - 7)
                try:
                    reply_kind, reply = kind + 1, self.answer(kind, body)
                except KeyError:
                    reply_kind, reply = 7, struct.pack("<I", 2)
                self.stream.sendall(struct.pack("<IBH", len(reply) + 7, reply_kind, tag) + reply)
        except (EOFError, OSError):
            self.stream.close()

    def answer(self, kind, body):
        fid = int.from_bytes(body[:4], "little")
        match kind:
            case 100:
                return struct.pack("<I", 65536) + text("9P2000.L")
            case 104:
                self.fids[fid] = ""
                return qid("")
            case 110:
                return self.walk(fid, body)
            case 12:
                return qid(self.fids[fid]) + struct.pack("<I", 0)
            case 24:
                return self.getattr(self.fids[fid])
            case 40:
                return self.readdir(self.fids[fid], int.from_bytes(body[4:12], "little"))
            case 116:
                return self.read(self.fids[fid], *struct.unpack("<QI", body[4:16]))
            case 120:
                del self.fids[fid]
                return b""
        raise KeyError(kind)

    def walk(self, fid, body):
        newfid, count = struct.unpack("<IH", body[4:10])
        names, rest = [], body[10:]
        for _ in range(count):
            length = int.from_bytes(rest[:2], "little")
            names.append(rest[2 : 2 + length].decode())
            rest = rest[2 + length :]
        path = "/".join(filter(None, [self.fids[fid], *names]))
        if path not in DIRECTORIES | FILES:
            raise KeyError(path)
        self.fids[newfid] = path
        return struct.pack("<H", count) + b"".join(qid(name) for name in names)

    def getattr(self, path):
        self.looked += path == "changes"
        mode, size = (0o040755, 0) if path in DIRECTORIES else (0o100644, SIZE)
        times = [0, 0, self.looked, 0, 0, 0, 0, 0]
        return struct.pack("<Q", 0x7FF) + qid(path) + struct.pack("<III15Q", mode, 0, 0, 1, 0, size, 4096, 0, *times, 0, 0)

    def readdir(self, path, offset):
        if path == "endless":
            names = [f"{offset + i}" for i in range(100)]
        else:
            names = ["../x"] if path == "names" and offset == 0 else []
        records = b"".join(
            qid("short") + struct.pack("<QB", offset + i, 8) + text(name) for i, name in enumerate(names, 1)
        )
        return struct.pack("<I", len(records)) + records

    def read(self, path, offset, count):
        end = SIZE // 2 if path == "short" else SIZE
        data = bytes(max(0, min(count, end - offset)))
        return struct.pack("<I", len(data)) + data


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=Connection(listener.accept()[0]).serve, daemon=True).start()
