"""A program that holds a served file mapped, and writes to it whenever it is told to.

mapping.py FILE ORDERS: each line in ORDERS, a fifo, is `OFFSET LENGTH`; so many random bytes are written there, and
`written` is printed. All pages are dirty from the beginning, so that in a file system in memory, which writes nothing
back, a write changes none of the file's times.
"""

import mmap
import os
import sys

path, orders = sys.argv[1:]
with open(path, "r+b") as file:
    view = mmap.mmap(file.fileno(), 0)
for at in range(0, len(view), mmap.PAGESIZE):
    view[at] = view[at]
print("ready", flush=True)
while True:
    with open(orders) as lines:
        for line in lines:
            offset, length = map(int, line.split())
            view[offset : offset + length] = os.urandom(length)
            print("written", flush=True)
