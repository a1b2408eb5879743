"""Makes seeds for the fuzzer of what real clients and a real master say: record.py XGET

Serves the tree that fuzz/manifest describes, puts itself between the master and each client that there is
(xget, and of Debian's diod and PyPI's p9fs what is installed), and writes what went over each connection,
at most 4,000 bytes of it, to fuzz/corpus/server/ (what clients said) and to client/ and fetch/ (what the
master said). The first byte tells the fuzzer how long the pieces are.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

MOST = 4000
xget = os.path.abspath(sys.argv[1])
fuzz = os.path.dirname(os.path.abspath(__file__))


def serve(directory):
    """A master; its address."""
    command = [xget, "--listen", "127.0.0.1", "-p", "0", "--cache", "none", directory]
    master = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in master.stderr:
        if line.startswith("xget: serving"):
            port = int(line.split(" on 127.0.0.1:")[1].split(":")[0])
            threading.Thread(target=master.stderr.read, daemon=True).start()
            return master, port
    sys.exit("the master does not start")


class Between:
    """Takes connections and keeps what goes over them."""

    def __init__(self, port):
        self.port, self.heard = port, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.socket.accept()
            master = socket.create_connection(("127.0.0.1", self.port))
            said = (bytearray(), bytearray())
            self.heard.append(said)
            for one, other, keep in ((client, master, said[0]), (master, client, said[1])):
                threading.Thread(target=self.pass_on, args=(one, other, keep), daemon=True).start()

    @staticmethod
    def pass_on(one, other, keep):
        try:
            while data := one.recv(65536):
                keep.extend(data[: MOST - len(keep)])
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def write(kind, name, data):
    directory = os.path.join(fuzz, "corpus", kind)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as file:
        file.write(b"\xff" + data)


with tempfile.TemporaryDirectory() as work:
    tree = os.path.join(work, "tree")
    os.makedirs(os.path.join(tree, "boot"))
    os.makedirs(os.path.join(tree, "etc"))
    for name, size in (("boot/kernel", 300000), ("boot/small", 1000), ("etc/empty", 0)):
        with open(os.path.join(tree, name), "wb") as file:
            file.truncate(size)
    os.symlink("kernel", os.path.join(tree, "boot/link"))
    master, port = serve(tree)
    p9fs = "import sys, p9fs; f = p9fs.P9FileSystem(host='127.0.0.1', port=int(sys.argv[1]), " \
        "username='root', version=sys.argv[2]); print(f.ls('')); print(f.cat('boot/small'))"
    clients = {
        "xget": lambda p: [xget, "-q", "--serve", "no", "-n", f"127.0.0.1:{p}", ".", os.path.join(work, "copy")],
        "xget-status": lambda p: [xget, "--status", "-n", f"127.0.0.1:{p}"],
        "diodcat": lambda p: ["diodcat", "-s", f"127.0.0.1:{p}", "-a", "/", "boot/small"],
        "diodls": lambda p: ["diodls", "-l", "-s", f"127.0.0.1:{p}", "-a", "/", "boot"],
        "p9fs": lambda p: [sys.executable, "-c", p9fs, str(p), "9P2000"],
        "p9fs-u": lambda p: [sys.executable, "-c", p9fs, str(p), "9P2000.u"],
        "p9fs-l": lambda p: [sys.executable, "-c", p9fs, str(p), "9P2000.L"],
    }
    for name, command in clients.items():
        between = Between(port)
        arguments = command(between.socket.getsockname()[1])
        if shutil.which(arguments[0]) is None:
            print(f"{name}: not here")
            continue
        subprocess.run(arguments, timeout=30, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.2)
        for number, (client, server) in enumerate(between.heard):
            write("server", f"{name}-{number}", bytes(client))
            for kind in ("client", "fetch"):
                write(kind, f"{name}-{number}", bytes(server))
        print(f"{name}: {len(between.heard)} connections")
    master.terminate()
