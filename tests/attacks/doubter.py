"""A host that says of every chunk that it is wrong, over many connections and again and again.

doubter.py HOST PORT CONNECTIONS SECONDS
"""

import sys
import time

import p9

host, port, connections, seconds = sys.argv[1], *map(int, sys.argv[2:])
clients = [p9.Client(host, port) for _ in range(connections)]
logs = [client.control("log", flags=1) for client in clients]
chunks = clients[0].chunks()
print("ready", flush=True)
end, chunk = time.monotonic() + seconds, 0
while time.monotonic() < end:
    for client, log in zip(clients, logs):
        lines = [f"10.0.0.9:20004 sent chunk {(chunk + n) % chunks} with a wrong hash" for n in range(100)]
        client.ask(p9.write(log, "\n".join(lines).encode()))
        chunk += 100
