#!/usr/bin/env python3
"""A node that joins a master, holds nothing, breaks no rule, and names the addresses that it is given.

    hearsay_node.py MASTER PORT OWN-IP ADDRESS[-LAST]!PORT[-LAST]...

The last byte of an address may be a range, as a port. It says `ready` once it has joined, and runs until it is ended.
"""

import socket
import struct
import sys
import threading

import p9
from p9 import TATTACH, TCLUNK, TFLUSH, TLOPEN, TREAD, TVERSION, TWALK, TWRITE

QID = bytes(13)


def addresses(words):
    """The lines of `redir`."""
    for word in words:
        ip, _, ports = word.partition("!")
        network, _, hosts = ip.rpartition(".")
        for host in numbers(hosts):
            for port in numbers(ports):
                yield f"{network}.{host}!{port}\n"


def numbers(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


class Client:
    """One connection to this node, of whoever fetches from it."""

    def __init__(self, sock, files):
        self.sock, self.files, self.fids = sock, files, {}

    def serve(self):
        try:
            while True:
                (size,) = struct.unpack("<I", p9.exactly(self.sock, 4))
                message = p9.exactly(self.sock, size - 4)
                kind, (tag,) = message[0], struct.unpack("<H", message[1:3])
                reply = self.answer(kind, message[3:])
                if reply is not None:
                    self.sock.sendall(p9.message(kind + 1, tag, reply))
        except (OSError, EOFError, struct.error):
            self.sock.close()

    def answer(self, kind, body):
        """What a reply of the usual type says; None for no reply."""
        if kind == TVERSION:
            return body
        if kind == TATTACH:
            return QID
        if kind == TWALK:
            fid, count = struct.unpack("<IH", body[4:10])
            self.fids[fid] = body.rsplit(b"\0", 1)[-1].decode("latin-1") if count else ""
            return struct.pack("<H", count) + QID * count
        if kind == TLOPEN:
            return QID + bytes(4)
        if kind == TREAD:
            return self.read(*struct.unpack("<IQI", body[:16]))
        if kind == TWRITE:
            return body[12:16]
        if kind in (TCLUNK, TFLUSH):
            return b""
        raise EOFError

    def read(self, fid, offset, count):
        name = self.fids.get(fid)
        data = self.files.get(name, b"")[offset : offset + count]
        # The end of `have` is never reached: whoever reads on waits.
        if name == "have" and not data:
            return None
        return struct.pack("<I", len(data)) + data


def main():
    master, port, own = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    listener = socket.create_server((own, 0), backlog=512)
    client = p9.Client(master, port)
    generation = client.generation()
    files = {
        "have": f"{generation} node\n".encode(),
        "redir": "".join(addresses(sys.argv[4:])).encode(),
    }
    joined = f"{listener.getsockname()[1]} {generation}\n".encode()
    client.ask(p9.write(client.control("avail", flags=1), joined))
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=Client(sock, files).serve, daemon=True).start()


main()
