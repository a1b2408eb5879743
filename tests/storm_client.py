"""A storm of connections to a master: storm_client.py HOST PORT MOST WITHIN

Calls it MOST times within WITHIN seconds, each from an address of its own below 127.0.0.0/8, and greets
and attaches on every call. Prints how long that took and the longest wait for an answer, then "N wait",
and keeps the connections silent until it is ended.
"""

import resource
import selectors
import signal
import socket
import struct
import sys
import time

host, port, most, within = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def text(value):
    return struct.pack("<H", len(value)) + value.encode()


def message(kind, tag, body):
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body


HELLO = message(100, 0xFFFF, struct.pack("<I", 65536) + text("9P2000.L"))
HELLO += message(104, 1, struct.pack("<II", 0, 0xFFFFFFFF) + text("root") + text("") + struct.pack("<I", 0))
# Rversion and Rattach.
ANSWER_BYTES = len(message(101, 0xFFFF, struct.pack("<I", 65536) + text("9P2000.L"))) + 7 + 13

selector = selectors.DefaultSelector()
waits, calls, done, started = [], {}, [], time.monotonic()


def call(number):
    caller = socket.socket()
    caller.bind((f"127.{1 + number // 250 // 250 % 250}.{number // 250 % 250}.{1 + number % 250}", 0))
    caller.setblocking(False)
    caller.connect_ex((host, port))
    calls[caller] = [time.monotonic(), 0]
    selector.register(caller, selectors.EVENT_WRITE)


def ready(caller, events):
    if events & selectors.EVENT_WRITE:
        caller.sendall(HELLO)
        selector.modify(caller, selectors.EVENT_READ)
        return
    got = caller.recv(4096)
    if not got:
        sys.exit("the master hung up")
    calls[caller][1] += len(got)
    if calls[caller][1] >= ANSWER_BYTES:
        waits.append(time.monotonic() - calls[caller][0])
        selector.unregister(caller)
        done.append(caller)


made = 0
while len(done) < most:
    due = min(most, 1 + int(most * (time.monotonic() - started) / within))
    while made < due:
        call(made)
        made += 1
    for key, events in selector.select(0.001):
        ready(key.fileobj, events)

waits.sort()
print(f"{most} were answered {time.monotonic() - started:.2f} s after the first call;", end=" ")
print(f"a call took {waits[len(waits) // 2] * 1000:.0f} ms in the middle, {waits[-1] * 1000:.0f} ms at most")
print(most, "wait", flush=True)
signal.pause()
