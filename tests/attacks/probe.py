"""Asks a master for next to nothing, again and again, and tells how long it has had to wait at most.

probe.py HOST PORT PID: until SIGTERM, when it prints the longest time to an answer: in milliseconds of the processor
time of the master's main thread, process PID, and in milliseconds.
"""

import signal
import sys
import time

import p9

host, port, pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def used():
    """Nanoseconds that its main thread has run for."""
    with open(f"/proc/{pid}/schedstat") as line:
        return int(line.read().split()[0])


class Over(Exception):
    pass


def stop(*_):
    raise Over


signal.signal(signal.SIGTERM, stop)
client = p9.Client(host, port)
print("ready", flush=True)
most_used, longest = 0, 0.0
try:
    while True:
        before, began = used(), time.monotonic()
        try:
            client.ask(p9.clunk(999))
        except p9.Refused:
            pass
        most_used, longest = max(most_used, used() - before), max(longest, time.monotonic() - began)
        time.sleep(0.002)
except Over:
    print(f"{most_used / 1e6:.0f} {longest * 1e3:.0f}", flush=True)
