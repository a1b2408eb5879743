"""The little of 9P2000.L that an attacker needs: messages as bytes, and a client that waits for each reply."""

import socket
import struct

NOFID = 0xFFFFFFFF
NOTAG = 0xFFFF

RLERROR, TLOPEN, TREADDIR = 7, 12, 40
TVERSION, TATTACH, TFLUSH, TWALK, TREAD, RREAD, TWRITE, TCLUNK = 100, 104, 108, 110, 116, 117, 118, 120


def exactly(connection, count):
    """So many bytes of a connection, or EOFError."""
    received = b""
    while len(received) < count:
        more = connection.recv(count - len(received))
        if not more:
            raise EOFError("the other side has closed the connection")
        received += more
    return received


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<H", len(value)) + value


def message(kind, tag, body):
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body


def version(msize=4 << 20):
    return message(TVERSION, NOTAG, struct.pack("<I", msize) + text("9P2000.L"))


def attach(fid, tag=1):
    return message(TATTACH, tag, struct.pack("<II", fid, NOFID) + text("") + text("") + struct.pack("<I", NOFID))


def walk(fid, newfid, names, tag=1):
    return message(TWALK, tag, struct.pack("<IIH", fid, newfid, len(names)) + b"".join(map(text, names)))


def lopen(fid, flags=0, tag=1):
    return message(TLOPEN, tag, struct.pack("<II", fid, flags))


def read(fid, offset, count, tag=1):
    return message(TREAD, tag, struct.pack("<IQI", fid, offset, count))


def write(fid, data, tag=1):
    return message(TWRITE, tag, struct.pack("<IQI", fid, 0, len(data)) + data)


def clunk(fid, tag=1):
    return message(TCLUNK, tag, struct.pack("<I", fid))


class Refused(Exception):
    """The server answered with Rlerror; the argument is its errno."""


class Client:
    """One connection, attached as fid 0."""

    def __init__(self, host, port, timeout=60):
        self.socket = socket.create_connection((host, port), timeout)
        self.next_fid = 1
        self.ask(version())
        self.ask(attach(0))

    def reply(self):
        size, kind, tag = struct.unpack("<IBH", exactly(self.socket, 7))
        body = exactly(self.socket, size - 7)
        if kind == RLERROR:
            raise Refused(struct.unpack("<I", body)[0])
        return kind, tag, body

    def ask(self, request):
        self.socket.sendall(request)
        return self.reply()[2]

    def open(self, *names, flags=0):
        fid, self.next_fid = self.next_fid, self.next_fid + 1
        self.ask(walk(0, fid, names))
        self.ask(lopen(fid, flags))
        return fid

    def control(self, name, flags=0):
        return self.open(".xget", name, flags=flags)

    def read(self, fid, offset, count):
        return self.ask(read(fid, offset, count))[4:]

    def read_all(self, fid):
        whole = b""
        while piece := self.read(fid, len(whole), 1 << 16):
            whole += piece
        return whole

    def status(self):
        """The server's own line of `status`, as a dict."""
        fid = self.control("status")
        first = self.read_all(fid).split(b"\n")[0].decode()
        self.ask(clunk(fid))
        return dict(word.split("=", 1) for word in first.split(" "))

    def generation(self):
        fid = self.control("have")
        first = self.read(fid, 0, 256).split(b"\n")[0].decode()
        return first.split(" ")[0]

    def chunks(self):
        return int(self.status()["held"].split("/")[1])
