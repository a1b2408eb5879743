"""What BitTorrent needs besides its clients: a .torrent file, and a tracker.

usage: torrent.py PORT READY-FILE     runs the tracker; makes the file when the first seeder has come
"""

import hashlib
import http.server
import os
import socket
import sys
import urllib.parse

SMALLEST_PIECE, MOST_PIECES = 16 << 10, 512


def bencode(value):
    """Integers, bytes and text, lists, and dicts in the order of their keys."""
    match value:
        case int():
            return b"i%de" % value
        case str():
            return bencode(value.encode())
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l%se" % b"".join(map(bencode, value))
        case dict():
            return b"d%se" % b"".join(bencode(key) + bencode(value[key]) for key in sorted(value))
    raise TypeError(f"{type(value)} has no form in a torrent")


def piece_length(size):
    length = SMALLEST_PIECE
    while size > length * MOST_PIECES:
        length *= 2
    return length


def make_torrent(folder, names, announce):
    """The torrent of one file, or of several in a folder that is called like this one."""
    sizes = [os.stat(f"{folder}/{name}").st_size for name in names]
    length = piece_length(sum(sizes))
    info = {"piece length": length, "pieces": b"".join(piece_hashes(folder, names, length))}
    if len(names) == 1:
        info |= {"name": names[0], "length": sizes[0]}
    else:
        info["name"] = os.path.basename(folder)
        info["files"] = [{"length": size, "path": name.split("/")} for name, size in zip(names, sizes)]
    return bencode({"announce": announce, "info": info})


def piece_hashes(folder, names, length):
    piece = b""
    for name in names:
        with open(f"{folder}/{name}", "rb") as file:
            while more := file.read(length - len(piece)):
                piece += more
                if len(piece) == length:
                    yield hashlib.sha1(piece).digest()
                    piece = b""
    if piece:
        yield hashlib.sha1(piece).digest()


class Tracker(http.server.BaseHTTPRequestHandler):
    """One swarm; whoever asks is told of all others."""

    peers = set()

    def do_GET(self):
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        peer = socket.inet_aton(self.client_address[0]) + int(asked["port"][0]).to_bytes(2, "big")
        others = b"".join(self.peers - {peer})
        if asked.get("event") == ["stopped"]:
            self.peers.discard(peer)
        else:
            self.peers.add(peer)
        if asked.get("left") == ["0"]:
            open(sys.argv[2], "w").close()
        body = bencode({"interval": 5, "min interval": 2, "peers": others})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


if __name__ == "__main__":
    Server(("", int(sys.argv[1])), Tracker).serve_forever()
