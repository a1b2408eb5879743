"""Passes connections on to a server, and cuts the first of them: cut.py PORT SERVER_PORT BYTES TIMES

The first TIMES connections end after BYTES from the server. At the end of each a line says how many came.
"""

import socket
import sys
import threading

port, server_port, most, times = map(int, sys.argv[1:])


def pass_on(source, sink, left):
    came = 0
    try:
        while left > 0 and (part := source.recv(min(left, 65536))):
            sink.sendall(part)
            came += len(part)
            left -= len(part)
    except OSError:
        pass
    for end in source, sink:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    return came


def answer(client, left):
    server = socket.create_connection(("127.0.0.1", server_port))
    threading.Thread(target=pass_on, args=(client, server, sys.maxsize), daemon=True).start()
    print(pass_on(server, client, left), flush=True)


listener = socket.create_server(("127.0.0.1", port))
while True:
    client, _ = listener.accept()
    left = most if times > 0 else sys.maxsize
    times -= 1
    threading.Thread(target=answer, args=(client, left), daemon=True).start()
