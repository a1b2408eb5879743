#!/usr/bin/env python3
"""Asks a machine again and again whether it serves, and whether it lives.

probe.py ADDRESS PORT PATH FILE   five times a second, until it is ended, a line for each answer:
    served SECONDS    over a new connection it has sent a part of PATH that is as in FILE
    lives SECONDS     its kernel has answered an echo request (ping), whatever its processes do
probe.py --longest-gap LOG        prints the longest time between two answers of the first kind, and
                                  the longest between two of the second kind in that time; fails where
                                  there are few answers, or none in the end

A machine that stands still as a whole, as one does that is emulated on a busy host, has a gap of both
kinds; a service that is not there has one of the first kind only.
"""

import random
import select
import socket
import struct
import sys
import threading
import time

EVERY = 0.2
PATIENCE = 5
BYTES = 4096


def ask(connection, kind, body):
    """Sends one 9P message (intro(5)); the body of the answer, which has the next type."""
    connection.sendall(struct.pack("<IBH", 7 + len(body), kind, 1) + body)
    head = exactly(connection, 7)
    size, answer, _ = struct.unpack("<IBH", head)
    body = exactly(connection, size - 7)
    if answer != kind + 1:
        raise ValueError(f"{kind} is answered by {answer}")
    return body


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("it hung up")
        data += more
    return data


def string(text):
    return struct.pack("<H", len(text)) + text.encode()


def served(address, port, path, content):
    at = random.randrange(len(content) - BYTES)
    with socket.create_connection((address, port), PATIENCE) as connection:
        ask(connection, 100, struct.pack("<I", 65536) + string("9P2000.L"))
        nobody = 0xFFFFFFFF
        ask(connection, 104, struct.pack("<II", 0, nobody) + string("") + string("") + struct.pack("<I", nobody))
        names = path.split("/")
        ask(connection, 110, struct.pack("<IIH", 0, 1, len(names)) + b"".join(map(string, names)))
        ask(connection, 12, struct.pack("<II", 1, 0))
        data = ask(connection, 116, struct.pack("<IQI", 1, at, BYTES))
    return data[4:] == content[at : at + BYTES]


def lives(address, number):
    """Sends an ICMP echo request and waits for its reply (RFC 792)."""
    packet = struct.pack(">BBHHH", 8, 0, 0, 0x7867, number & 0xFFFF)
    total = sum(struct.unpack(">4H", packet))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    packet = struct.pack(">BBHHH", 8, 0, checksum, 0x7867, number & 0xFFFF)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.sendto(packet, (address, 0))
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            if select.select([raw], [], [], left)[0]:
                reply = raw.recv(2048)[20:]
                if reply[:1] == b"\0" and reply[4:8] == packet[4:8]:
                    return True
    return False


def again_and_again(word, question):
    number = 0
    while True:
        began = time.monotonic()
        number += 1
        try:
            if question(number):
                print(word, f"{time.monotonic():.3f}", f"{time.monotonic() - began:.3f}", flush=True)
        except (OSError, ValueError, struct.error) as error:
            print("#", word, f"{time.monotonic():.3f}", error, flush=True)
        time.sleep(max(0, began + EVERY - time.monotonic()))


def longest_gap(log):
    times = {"served": [], "lives": []}
    for line in open(log):
        word, *rest = line.split()
        if word in times:
            times[word].append(float(rest[0]))
    pairs = list(zip(times["served"], times["served"][1:]))
    if len(pairs) < 20:
        sys.exit(f"only {len(pairs)} answers")
    unserved = times["lives"][-1] - times["served"][-1]
    if unserved > 2 * PATIENCE:
        sys.exit(f"in the end it is not served any more, for {unserved:.0f} s")
    start, end = max(pairs, key=lambda pair: pair[1] - pair[0])
    alive = [start] + [at for at in times["lives"] if start < at < end] + [end]
    standing = max(later - earlier for earlier, later in zip(alive, alive[1:]))
    print(f"{end - start:.2f} {standing:.2f}")


if sys.argv[1] == "--longest-gap":
    longest_gap(sys.argv[2])
else:
    address, port, path, name = sys.argv[1:]
    content = open(name, "rb").read()
    alive = threading.Thread(
        target=again_and_again, args=("lives", lambda number: lives(address, number)), daemon=True
    )
    alive.start()
    again_and_again("served", lambda _: served(address, int(port), path, content))
