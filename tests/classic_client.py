#!/usr/bin/env python3
"""The client of the 2009 xget, as it was seen to behave on the wire, with an encoder of its own.

classic_client.py [--serve PORT] [--linger] HOST:PORT NAME DEST

Fetches NAME (`.` is everything) into DEST in the order of the original: `log`, the tree, then for
each file `redir`, `data`, `avail`, then all data in turns, `checksum`, and lines to `log`. With
--serve it also serves the `data` of what it has to whom the master sends, and stays until standard
input ends; `withdraw` on a line there clunks its `avail` fids and hangs up nothing.

Exit codes: 0 whole, 255 a connection was dropped, 3 a reply that must not be, 4 a wrong checksum.
"""
import argparse, os, socket, struct, sys, threading, zlib

NOFID, NOTAG, MSIZE, DMDIR = 0xFFFFFFFF, 0xFFFF, 32792, 0x80000000
DATA_BYTES = 32768


class Dropped(Exception):
    pass


class Refused(Exception):
    pass


def text(s):
    raw = s if isinstance(s, bytes) else s.encode()
    return struct.pack('<H', len(raw)) + raw


def parse_names(body, at):
    """The four texts of a stat entry: name, uid, gid, muid."""
    names = []
    for _ in range(4):
        count, = struct.unpack_from('<H', body, at)
        names.append(body[at + 2:at + 2 + count])
        at += 2 + count
    return names


def parse_stat(raw):
    """(name, mode, length) of a stat entry with its size field; the rest of the bytes."""
    size, = struct.unpack_from('<H', raw)
    body, rest = raw[2:2 + size], raw[2 + size:]
    mode, = struct.unpack_from('<I', body, 2 + 4 + 13)
    length, = struct.unpack_from('<Q', body, 2 + 4 + 13 + 12)
    at = 2 + 4 + 13 + 12 + 8
    name, *owners = parse_names(body, at)
    # The original looks owners up by name, and takes any user where there is none.
    assert owners == [b'root'] * 3, (name, owners)
    return (name, mode, length), rest


class Mount:
    """One connection: requests go out at once, replies are matched by tag."""

    def __init__(self, address):
        host, port = address.rsplit(':', 1)
        self.sock = socket.create_connection((host, int(port)), timeout=60)
        self.replies, self.tag, self.fid, self.lock = {}, 0, 0, threading.Lock()
        kind, body = self.ask(100, struct.pack('<I', MSIZE) + text('9P2000.u'), NOTAG)
        msize, = struct.unpack_from('<I', body)
        assert kind == 101 and body[4:] == text('9P2000.u') and msize == MSIZE, body
        self.ask(104, struct.pack('<II', 0, NOFID) + text('root') + text('') + struct.pack('<I', 0))

    def send(self, kind, body, tag=None):
        if tag is None:
            self.tag = (self.tag + 1) % 0xFFFF
            tag = self.tag
        try:
            self.sock.sendall(struct.pack('<IBH', 7 + len(body), kind, tag) + body)
        except OSError as error:
            raise Dropped(str(error))
        return tag

    def take(self, count):
        raw = b''
        while len(raw) < count:
            try:
                more = self.sock.recv(count - len(raw))
            except OSError as error:
                raise Dropped(str(error))
            if not more:
                raise Dropped('hung up')
            raw += more
        return raw

    def receive(self):
        size, kind, tag = struct.unpack('<IBH', self.take(7))
        assert size <= MSIZE, size
        return kind, tag, self.take(size - 7)

    def wait(self, tag):
        while tag not in self.replies:
            kind, got, body = self.receive()
            self.replies[got] = kind, body
        return self.replies.pop(tag)

    def ask(self, kind, body, tag=None):
        reply, body = self.wait(self.send(kind, body, tag))
        if reply == 107:
            raise Refused(body)
        assert reply == kind + 1, (kind, reply)
        return reply, body

    def walk(self, path, start=0):
        """A new fid at a path, or None where it does not lead all the way."""
        names = [n for n in path.split(b'/') if n not in (b'', b'.')]
        self.fid += 1
        fid = self.fid
        body = struct.pack('<IIH', start, fid, len(names)) + b''.join(map(text, names))
        try:
            _, body = self.ask(110, body)
        except Refused:
            return None
        return fid if struct.unpack_from('<H', body)[0] == len(names) else None

    def open(self, fid, mode):
        self.ask(112, struct.pack('<IB', fid, mode))

    def stat(self, fid):
        return parse_stat(self.ask(124, struct.pack('<I', fid))[1][2:])[0]

    def read(self, fid, offset, count):
        return self.ask(116, struct.pack('<IQI', fid, offset, count))[1][4:]

    def write(self, fid, data):
        body = struct.pack('<IQI', fid, 0, len(data)) + data
        assert struct.unpack('<I', self.ask(118, body)[1])[0] == len(data)

    def clunk(self, fid):
        self.ask(120, struct.pack('<I', fid))


class Fetch:
    def __init__(self, arguments):
        self.arguments = arguments
        self.master = Mount(arguments.server)
        self.log = self.master.walk(b'log')
        assert self.log is not None, 'no log'
        self.master.open(self.log, 2)
        level = self.master.read(self.log, 0, 32)
        assert len(level) < 32 and level.isdigit(), level
        assert self.master.read(self.log, len(level), 32) == b''
        self.files, self.redirected = [], 0

    def find(self, name):
        """What original clients ask of each name: `name/data`, then the name itself."""
        m = self.master
        fid = m.walk(name + b'/data')
        if fid is not None:
            _, mode, length = m.stat(fid)
            m.clunk(fid)
            if not mode & DMDIR:
                return self.files.append((name, length))
        fid = m.walk(name)
        if fid is None:
            raise Refused(name)
        _, mode, _ = m.stat(fid)
        assert mode & DMDIR, (name, oct(mode))
        clone = m.walk(b'', fid)
        m.open(clone, 0)
        raw = b''
        while more := m.read(clone, len(raw), DATA_BYTES):
            raw += more
        m.clunk(clone)
        m.clunk(fid)
        os.makedirs(self.dest(name), exist_ok=True)
        while raw:
            (child, mode, _), raw = parse_stat(raw)
            assert mode & DMDIR, (child, oct(mode))
            if not (name == b'.' and child == b'log'):
                self.find(child if name == b'.' else name + b'/' + child)

    def dest(self, name):
        return os.path.join(os.fsencode(self.arguments.dest), name)

    def start(self, name, length):
        """redir, data at whoever was named, avail."""
        m = self.master
        fid = m.walk(name + b'/redir')
        m.open(fid, 0)
        redir = m.read(fid, 0, 128).decode()
        m.clunk(fid)
        at, data = m, None
        if redir != 'me':
            try:
                at = Mount(redir.replace('!', ':'))
                data = at.walk(name + b'/data')
                self.redirected += 1
            except (OSError, Dropped):
                at = m
            print('redirected', name.decode(), redir, flush=True)
        data = data or at.walk(name + b'/data')
        at.open(data, 0)
        avail = m.walk(name + b'/avail')
        m.open(avail, 1)
        m.write(avail, b'%d %s\0' % (self.arguments.serve or 1, redir.encode()))
        os.makedirs(os.path.dirname(self.dest(name)), exist_ok=True)
        open(self.dest(name), 'wb').close()
        return [name, at, data, avail, 0]

    def fetch(self):
        """All files in turns, one outstanding read each."""
        jobs = [self.start(name, length) for name, length in self.files]
        self.jobs = {job[0]: job for job in jobs}
        if self.arguments.serve:
            threading.Thread(target=self.serve, daemon=True).start()
        active = list(jobs)
        while active:
            tags = [(job, job[1].send(116, struct.pack('<IQI', job[2], job[4], DATA_BYTES)))
                    for job in active]
            for job, tag in tags:
                kind, body = job[1].wait(tag)
                if kind == 107:
                    # The original takes this for the end, and leaves a truncated file.
                    print('ERROR IN DATA', job[0].decode(), body[2:], flush=True)
                    sys.exit(3)
                data = body[4:]
                # Not kept open, as of these there may be fewer than of fids.
                with open(self.dest(job[0]), 'ab') as file:
                    file.write(data)
                job[4] += len(data)
                if not data:
                    active.remove(job)
            if self.arguments.pause:
                print('paused', flush=True)
                sys.stdin.readline()
                self.arguments.pause = False
        for name, _, _, _, size in jobs:
            fid = self.master.walk(name + b'/checksum')
            self.master.open(fid, 0)
            checksum = int(self.master.read(fid, 0, 128))
            assert self.master.read(fid, 16, 128) == b''
            with open(self.dest(name), 'rb') as file:
                if zlib.adler32(file.read()) != checksum:
                    print('WRONG CHECKSUM', name.decode(), flush=True)
                    sys.exit(4)
            self.master.write(self.log, b'%s: %d bytes\n' % (name, size))
        print('whole', len(jobs), 'redirected', self.redirected, flush=True)

    def withdraw(self):
        for job in self.jobs.values():
            self.master.clunk(job[3])
        print('withdrawn', flush=True)

    def serve(self):
        listener = socket.create_server(('', self.arguments.serve))
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=self.answer, args=(sock,), daemon=True).start()

    def answer(self, sock):
        """The secondary's side: just what such a client asks for `PATH/data`."""
        fids, peer = {}, Mount.__new__(Mount)
        peer.sock = sock
        qid = bytes(13)
        while True:
            try:
                kind, tag, body = peer.receive()
            except Dropped:
                return
            fid, = struct.unpack_from('<I', body)
            if kind == 100:
                reply = body
            elif kind == 104:
                reply = qid
            elif kind == 110:
                new, count = struct.unpack_from('<IH', body, 4)
                at, path = 10, []
                for _ in range(count):
                    size, = struct.unpack_from('<H', body, at)
                    path.append(body[at + 2:at + 2 + size])
                    at += 2 + size
                fids[new] = b'/'.join(path[:-1])
                reply = struct.pack('<H', count) + qid * count
            elif kind == 112:
                reply = qid + struct.pack('<I', 0)
            elif kind == 116:
                offset, count = struct.unpack_from('<QI', body, 4)
                with open(self.dest(fids[fid]), 'rb') as file:
                    file.seek(offset)
                    data = file.read(count)
                print('served', fids[fid].decode(), offset, len(data), flush=True)
                reply = struct.pack('<I', len(data)) + data
            else:
                reply = b''
            peer.send(kind + 1, reply, tag)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--serve', type=int, default=0)
    parser.add_argument('--pause', action='store_true', help='wait for a line after the first reads')
    parser.add_argument('server')
    parser.add_argument('name')
    parser.add_argument('dest')
    arguments = parser.parse_args()
    try:
        fetch = Fetch(arguments)
        fetch.find(os.fsencode(arguments.name))
        fetch.fetch()
        if arguments.serve:
            for line in sys.stdin:
                if line.strip() == 'withdraw':
                    fetch.withdraw()
    except Dropped as why:
        print('DROPPED', why, flush=True)
        sys.exit(255)


main()
