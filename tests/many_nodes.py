"""Joins a master as many nodes at once: many_nodes.py HOST PORT COUNT CHUNKS

Each connection says that it serves and holds everything, and leaves a read of `have` and one of
`next` waiting. Prints "N nodes wait" once all of them do, and keeps them until it is ended.
"""

import resource
import signal
import socket
import struct
import sys

host, port, count, chunks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
O_RDONLY, O_WRONLY, O_RDWR = 0, 1, 2
NOTAG, NOFID = 0xFFFF, 0xFFFFFFFF
TLOPEN, TVERSION, TATTACH, TWALK, TREAD, TWRITE = 12, 100, 104, 110, 116, 118
ROOT, HAVE, NEXT, AVAIL = range(4)


def text(value):
    return struct.pack("<H", len(value)) + value.encode()


class Node:
    def __init__(self, number):
        self.socket = socket.create_connection((host, port))
        self.call(TVERSION, struct.pack("<I", 65536) + text("9P2000.L"), NOTAG)
        names = text("root") + text("")
        self.call(TATTACH, struct.pack("<II", ROOT, NOFID) + names + struct.pack("<I", 0))
        for fid, name, flags in ((HAVE, "have", O_RDONLY), (NEXT, "next", O_RDWR), (AVAIL, "avail", O_WRONLY)):
            self.call(TWALK, struct.pack("<IIH", ROOT, fid, 2) + text(".xget") + text(name))
            self.call(TLOPEN, struct.pack("<II", fid, flags))
        have = self.call(TREAD, struct.pack("<IQI", HAVE, 0, 60000))[4:]
        generation = have.decode().split()[0]
        self.write(AVAIL, f"{20000 + number} {generation}\n")
        self.write(NEXT, f"want 0-{chunks - 1}\n")
        self.write(NEXT, f"held 0-{chunks - 1}\n")
        self.send(TREAD, struct.pack("<IQI", HAVE, len(have), 60000), 1)
        self.send(TREAD, struct.pack("<IQI", NEXT, 0, 60000), 2)

    def write(self, fid, line):
        self.call(TWRITE, struct.pack("<IQI", fid, 0, len(line)) + line.encode())

    def send(self, kind, body, tag):
        self.socket.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)

    def call(self, kind, body, tag=0):
        self.send(kind, body, tag)
        size, answer, _ = struct.unpack("<IBH", self.take(7))
        body = self.take(size - 7)
        if answer != kind + 1:
            sys.exit(f"request {kind} was answered with {answer}: {body!r}")
        return body

    def take(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                sys.exit("the master hung up")
            data += more
        return data


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
nodes = [Node(number) for number in range(count)]
print(len(nodes), "nodes wait", flush=True)
signal.pause()
