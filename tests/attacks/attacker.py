"""attacker.py KIND HOST PORT CONNECTIONS SECONDS: asks for too much, from one host, for so long.

KIND is one of the functions below; each has the connections do one thing again and again, as fast as the server lets
them. Says `ready` once all connections are made, and at the end how many of them are still open.
"""

import resource
import selectors
import socket
import sys
import time

import p9


class Connection:
    """A connection that sends `first` once and `again` over and over, and takes at most `rate` bytes a second."""

    def __init__(self, address, first=b"", again=b"", rate=None, pause=0.0):
        self.socket = socket.socket()
        if rate is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.socket.settimeout(20)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self.out, self.again, self.rate, self.pause = first, again, rate, pause
        self.taken, self.began, self.next = 0, time.monotonic(), 0.0

    def may_take(self, now):
        return self.rate is None or self.taken < self.rate * (now - self.began)

    def wants_to_send(self, now):
        return bool(self.out) or (bool(self.again) and now >= self.next)

    def send(self, now):
        if not self.out:
            self.out, self.next = self.again, now + self.pause
        sent = self.socket.send(self.out)
        self.out = self.out[sent:]

    def take(self):
        most = 1 << 16 if self.rate is None else 4096
        got = len(self.socket.recv(most))
        self.taken += got
        return got > 0


def greeting(*requests):
    return p9.version() + p9.attach(0) + b"".join(requests)


def opened(*names, flags=0):
    return greeting(p9.walk(0, 1, names), p9.lopen(1, flags))


def lines(word, address):
    """64 KB of the shortest lines that name all chunks."""
    line = f"{word} 0-{p9.Client(*address).chunks() - 1}\n".encode()
    return opened(".xget", "next", flags=1), p9.write(1, line * (60000 // len(line)))


def want(address):
    first, again = lines("want", address)
    return dict(first=first, again=again)


def held(address):
    first, again = lines("held", address)
    return dict(first=first, again=again)


def image(_):
    """Reads of the whole image, of which nothing much is taken."""
    reads = b"".join(p9.read(1, 0, 4 << 20, tag) for tag in range(2, 66))
    return dict(first=opened(".xget", "image") + reads, again=b"", rate=2000)


def readers(_):
    """The same, taken as fast as it comes."""
    reads = b"".join(p9.read(1, 0, 1 << 20, tag) for tag in range(2, 18))
    return dict(first=opened(".xget", "image"), again=reads, pause=0.01)


def file(_):
    """An ordinary file, read again and again."""
    reads = b"".join(p9.read(1, 0, 1 << 18, tag) for tag in range(2, 18))
    return dict(first=opened("image"), again=reads, pause=0.01)


def status(_):
    """Opens, and never reads, what has to be made."""
    batch = b"".join(p9.walk(0, 1, [".xget", "status"]) + p9.lopen(1) + p9.clunk(1) for _ in range(50))
    return dict(first=greeting(), again=batch)


def texts(_):
    """Holds as many texts as the server lets it."""
    batch = b"".join(p9.walk(0, fid, [".xget", "status"]) + p9.lopen(fid) for fid in range(1, 200))
    return dict(first=greeting(batch), again=b"")


def manifest(_):
    """Reads the manifest byte by byte and never ends."""
    return dict(first=opened(".xget", "manifest"), again=p9.read(1, 0, 1), pause=0.5)


def joins(address):
    """Pretends to serve, lacks everything and fetches nothing."""
    client = p9.Client(*address)
    joined = f"1 {client.generation()}\n".encode()
    everything = f"want 0-{client.chunks() - 1}\n".encode()
    first = greeting(
        p9.walk(0, 1, [".xget", "avail"]) + p9.lopen(1, 1) + p9.write(1, joined),
        p9.walk(0, 2, [".xget", "next"]) + p9.lopen(2, 2) + p9.write(2, everything),
    )
    return dict(first=first, again=p9.read(2, 0, 64, 3) + p9.read(2, 0, 64, 4), pause=0.2)


def silent(_):
    return dict()


def pages(_):
    """Asks for pages over HTTP and takes next to nothing of the answers."""
    again = b"GET /.xget/status.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    return dict(again=again, rate=2000)


def downloads(_):
    """Downloads a file over HTTP, again and again."""
    return dict(again=b"GET /image HTTP/1.1\r\nHost: x\r\n\r\n", pause=0.05)


def connect(address, count, behaviour):
    connections = []
    for _ in range(count):
        try:
            connections.append(Connection(address, **behaviour))
        except OSError:
            pass
    return connections


def step(connections, now):
    """What can be done at once; whether there was anything. Connections that have ended leave."""
    selector = selectors.DefaultSelector()
    for connection in connections:
        events = selectors.EVENT_READ if connection.may_take(now) else 0
        events |= selectors.EVENT_WRITE if connection.wants_to_send(now) else 0
        if events:
            selector.register(connection.socket, events, connection)
    for key, events in selector.select(0.02) if selector.get_map() else []:
        connection = key.data
        try:
            if events & selectors.EVENT_WRITE:
                connection.send(now)
            if events & selectors.EVENT_READ and not connection.take():
                connections.remove(connection)
        except BlockingIOError:
            pass
        except OSError:
            connections.remove(connection)
    selector.close()


def main():
    kind, host, port, count, seconds = sys.argv[1:]
    address, count, seconds = (host, int(port)), int(count), float(seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    behaviour = globals()[kind](address)
    connections = connect(address, count, behaviour)
    print("ready", len(connections), flush=True)
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        step(connections, now)
        if not connections:
            time.sleep(0.5)
            connections = connect(address, count, behaviour)
    print("open", len(connections), "took", sum(connection.taken for connection in connections), "bytes", flush=True)


main()
