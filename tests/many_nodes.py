"""Joins a master as many nodes at once: many_nodes.py HOST PORT COUNT CHUNKS [swarm]

Each connection says that it serves and holds everything, and leaves a read of `have` and one of
`next` waiting. Prints "N nodes wait" once all of them do, and keeps them until it is ended.

With `swarm` it is a picture of a cluster that boots: racks of 40 nodes on addresses of the loopback,
each with another share, which grows; some are whole, and some have stopped or are in trouble.
"""

import random
import resource
import signal
import socket
import struct
import sys
import time

host, port, count, chunks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
O_RDONLY, O_WRONLY, O_RDWR = 0, 1, 2
NOTAG, NOFID = 0xFFFF, 0xFFFFFFFF
TLOPEN, TVERSION, TATTACH, TWALK, TREAD, TWRITE = 12, 100, 104, 110, 116, 118
ROOT, HAVE, NEXT, AVAIL, LOG = range(5)
# What some nodes write into the log: a problem of their own in markup, and one of another node.
REPORTS = {300: "<b>127.77.9.9:20004</b>: sent chunks with wrong hashes", 200: "127.77.9.9:20004: timed out"}
swarm = sys.argv[5:] == ["swarm"]
random.seed(1)


def text(value):
    return struct.pack("<H", len(value)) + value.encode()


class Node:
    def __init__(self, number):
        own = f"127.77.{number // 40}.{number % 40 + 1}" if swarm else ""
        self.socket = socket.create_connection((host, port), source_address=(own, 0))
        self.call(TVERSION, struct.pack("<I", 65536) + text("9P2000.L"), NOTAG)
        names = text("root") + text("")
        self.call(TATTACH, struct.pack("<II", ROOT, NOFID) + names + struct.pack("<I", 0))
        for fid, name, flags in ((HAVE, "have", O_RDONLY), (NEXT, "next", O_RDWR), (AVAIL, "avail", O_WRONLY)):
            self.open(fid, name, flags)
        have = self.call(TREAD, struct.pack("<IQI", HAVE, 0, 60000))[4:]
        generation = have.decode().split()[0]
        self.write(AVAIL, f"{20000 + number} {generation}\n")
        self.write(NEXT, f"want 0-{chunks - 1}\n")
        self.held = share(number) if swarm else chunks
        if self.held:
            self.write(NEXT, f"held 0-{self.held - 1}\n")
        self.stopped = swarm and random.random() < 0.01
        if swarm and number % 333 in REPORTS:
            self.open(LOG, "log", O_WRONLY)
            self.write(LOG, REPORTS[number % 333])
        self.send(TREAD, struct.pack("<IQI", HAVE, len(have), 60000), 1)
        self.send(TREAD, struct.pack("<IQI", NEXT, 0, 60000), 2)

    def open(self, fid, name, flags):
        self.call(TWALK, struct.pack("<IIH", ROOT, fid, 2) + text(".xget") + text(name))
        self.call(TLOPEN, struct.pack("<II", fid, flags))

    def go_on(self):
        """Another chunk or two have come, and as much was sent."""
        if self.held < chunks and not self.stopped:
            more = min(random.randint(1, 2), chunks - self.held)
            # The server's answers are not waited for: some are to what was left waiting.
            self.tell(f"held {self.held}-{self.held + more - 1}\n")
            self.held += more
            self.tell(f"sent {self.held * random.randint(60000, 70000)} {random.randint(3, 9)}\n")

    def tell(self, line):
        self.send(TWRITE, struct.pack("<IQI", NEXT, 0, len(line)) + line.encode(), 3)

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


def share(number):
    """Racks start one after the other."""
    started = 1.1 - number // 40 / 30
    return max(0, min(chunks, int(chunks * random.gauss(started, 0.12))))


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
nodes = [Node(number) for number in range(count)]
print(len(nodes), "nodes wait", flush=True)
while swarm:
    time.sleep(1)
    for node in nodes:
        node.go_on()
signal.pause()
