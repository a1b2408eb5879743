#!/usr/bin/env python3
"""Services that are not xget's: one that greets as an SSH server, one that answers as a web server, a silent one.

    third_party.py OWN-IP SSH-PORT HTTP-PORT SILENT-PORT

It prints `ready`, then a line `PORT CALLER` for each connection, and runs until it is ended.
"""

import selectors
import socket
import sys

BANNERS = [b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.0 400 Bad Request\r\nServer: third\r\n\r\n", b""]


def main():
    selector = selectors.DefaultSelector()
    for port, banner in zip(sys.argv[2:], BANNERS):
        listener = socket.create_server((sys.argv[1], int(port)), backlog=100)
        selector.register(listener, selectors.EVENT_READ, banner)
    silent = []
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            sock, caller = key.fileobj.accept()
            print(key.fileobj.getsockname()[1], caller[0], flush=True)
            if key.data:
                sock.sendall(key.data)
                sock.close()
            else:
                silent.append(sock)


main()
