"""The tools: how each is started, and how it is known that a node has everything.

An adapter is a class. It gets the `Run` of measure.py: where the source is, where copy(node) goes, the
master's address, and start() for what it needs besides.
"""

import os
import shutil
import subprocess
import sys

from network import address
from network import run as command_output
from torrent import make_torrent

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(HERE)
PORT, TRACKER_PORT = 20004, 6969


def xget_program():
    target = os.environ.get("CARGO_TARGET_DIR") or f"{REPOSITORY}/target"
    return os.path.abspath(os.environ.get("XGET") or f"{target}/release/xget")


class Tool:
    needs = {}  # command: Debian package
    done = "its client's process ends"
    marks = False  # it calls a hook when a node is done
    trees = True  # it can bring many files
    one_by_one = False  # the master sends everything to every node
    pace_of_slowest = False
    usual_ratio = 1.6  # for the estimate of time

    def missing(self):
        """The commands that are not here."""
        return [command for command in self.needs if not shutil.which(command)]

    def version(self):
        return first_line(next(iter(self.needs)), "--version")

    def prepare(self, run):
        """Writes what it needs to the work directory."""

    def servers(self, run):
        """What runs on the master beforehand."""
        return []

    def sender(self, run):
        """What starts on the master together with the nodes."""

    def ready(self, run):
        return listens(run, PORT)


class Xget(Tool):
    """this project's program: a swarm over 9P, every chunk verified"""

    name = "xget"
    done = "xget -b returns: all files are whole, and it serves on in the background"
    usual_ratio = 1.3

    def missing(self):
        return [] if os.access(xget_program(), os.X_OK) else [xget_program()]

    def version(self):
        return first_line(xget_program(), "--version")

    def servers(self, run):
        return [[xget_program(), "-p", str(PORT), "--cache", "none", "-D", "1", run.source]]

    def client(self, run, node):
        return [xget_program(), "-b", "-q", "-n", run.master, "-p", str(PORT), ".", run.copy(node)]

    def ready(self, run):
        with open(run.log(0), "a+") as log:
            log.seek(0)
            return any(": serving " in line and " on " in line for line in log)

    def all_is_out(self, run):
        status = command_output(
            "nsenter", "--net=/run/netns/0", xget_program(), "--status", "--raw", "-n", run.master, "-p", str(PORT)
        )
        return " only_here=0" in status


class Nginx(Tool):
    """nginx, and curl on the nodes (HTTP)"""

    name = "nginx"
    needs = {"nginx": "nginx-light", "curl": "curl"}
    one_by_one = True

    def version(self):
        return first_line("nginx", "-v")

    def prepare(self, run):
        run.file(
            "nginx.conf",
            f"""user root; worker_processes 1; daemon off; pid {run.work}/nginx.pid; error_log stderr;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
                server {{ listen {PORT} backlog=1024; root {run.source}; }}
            }}
            """,
        )
        for node in range(1, run.nodes + 1):
            run.file(
                f"urls{node}",
                "".join(
                    f"url = http://{run.master}:{PORT}/{name}\noutput = {run.copy(node)}/{name}\n"
                    for name in run.content.names
                ),
            )

    def servers(self, run):
        return [["nginx", "-p", run.work, "-c", f"{run.work}/nginx.conf", "-e", "stderr"]]

    def client(self, run, node):
        return ["curl", "-sSf", "--create-dirs", "-K", f"{run.work}/urls{node}"]


class Rsync(Tool):
    """rsync and its daemon"""

    name = "rsync"
    needs = {"rsync": "rsync"}
    one_by_one = True

    def prepare(self, run):
        run.file(
            "rsyncd.conf",
            f"pid file = {run.work}/rsyncd.pid\nuse chroot = no\nuid = root\ngid = root\n"
            f"[source]\npath = {run.source}\n",
        )

    def servers(self, run):
        return [["rsync", "--daemon", "--no-detach", f"--port={PORT}", f"--config={run.work}/rsyncd.conf"]]

    def client(self, run, node):
        return ["rsync", "-rW", f"rsync://{run.master}:{PORT}/source/", f"{run.copy(node)}/"]


class Diod(Tool):
    """diod and its diodcat (9P2000.L, one read at a time)"""

    name = "diod"
    needs = {"diod": "diod", "diodcat": "diod"}
    one_by_one = True
    trees = False

    def version(self):
        return package_version("diod")

    def prepare(self, run):
        run.file("hosts", "".join(f"{address(host)} host{host}\n" for host in range(run.nodes + 1)))

    def servers(self, run):
        # It turns away whom it cannot name.
        names = f"mount --bind {run.work}/hosts /etc/hosts"
        options = f"-f -n -N -S -U root -L stderr -l {run.master}:{PORT} -e {run.source}"
        return [["unshare", "--mount", "sh", "-c", f"{names} && exec diod {options}"]]

    def client(self, run, node):
        command = f"exec diodcat -s {run.master}:{PORT} -a {run.source} image > {run.copy(node)}/image"
        return ["sh", "-c", command]


class Udpcast(Tool):
    """udpcast: multicast, starts when all have come"""

    name = "udpcast"
    needs = {"udp-sender": "udpcast", "udp-receiver": "udpcast"}
    trees = False
    pace_of_slowest = True

    def version(self):
        return package_version("udpcast")

    def servers(self, run):
        options = ["--interface", "eth0", "--nokbd", "--no-progress"]
        wait = ["--min-receivers", str(run.nodes), "--max-wait", "60"]
        return [["udp-sender", *options, *wait, "--file", f"{run.source}/image"]]

    def client(self, run, node):
        options = ["--interface", "eth0", "--nokbd", "--no-progress"]
        return ["udp-receiver", *options, "--file", f"{run.copy(node)}/image"]

    def ready(self, run):
        return listens(run, 9001, "udp")


class Uftp(Tool):
    """uftp: multicast at a rate it is told, here 93 % of the links'"""

    name = "uftp"
    needs = {"uftp": "uftp", "uftpd": "uftp"}
    done = "uftpd calls its hook for a received file"
    marks = True
    trees = False
    pace_of_slowest = True

    def version(self):
        return package_version("uftp")

    def prepare(self, run):
        make_hook(run)

    def client(self, run, node):
        return ["uftpd", "-d", "-q", "-t", "-I", "eth0", "-D", run.copy(node), "-s", f"{run.work}/hook"]

    def sender(self, run):
        kbits = int(min(run.case.rates()) * 0.93 / 1000) or -1
        nodes = ",".join(address(node) for node in range(1, run.nodes + 1))
        options = ["-B", "1048576", "-r", "0.05:0.01:1.0", "-H", nodes]
        return ["uftp", "-R", str(kbits), "-I", "eth0", *options, f"{run.source}/image"]

    def ready(self, run):
        return True


class Aria2(Tool):
    """aria2 (BitTorrent), with a tracker that tells everybody of everybody"""

    name = "aria2"
    needs = {"aria2c": "aria2"}
    done = "aria2c calls its hook for a complete download, and serves on"
    marks = True
    usual_ratio = 3.5

    def prepare(self, run):
        make_hook(run)
        announce = f"http://{run.master}:{TRACKER_PORT}/announce"
        with open(f"{run.work}/torrent", "wb") as file:
            file.write(make_torrent(run.source, run.content.names, announce))
        if run.content.files > 1:  # it makes a folder of the torrent's name
            for node in range(1, run.nodes + 1):
                os.rmdir(run.copy(node))
                os.mkdir(f"{run.work}/into{node}")
                os.symlink(f"into{node}/source", run.copy(node))

    def servers(self, run):
        yield [sys.executable, f"{HERE}/torrent.py", str(TRACKER_PORT), f"{run.work}/seeded"]
        run.wait_for(lambda: listens(run, TRACKER_PORT))
        where = run.source if run.content.files == 1 else run.work
        yield self.command(run, where, "--check-integrity=true")

    def client(self, run, node):
        into = run.copy(node) if run.content.files == 1 else f"{run.work}/into{node}"
        return self.command(run, into, f"--on-bt-download-complete={run.work}/hook")

    def command(self, run, folder, *options):
        common = (
            "--quiet --no-conf --enable-dht=false --bt-enable-lpd=false --file-allocation=none"
            " --seed-ratio=0 --bt-max-peers=0 --listen-port=6881"
        )
        return ["aria2c", *common.split(), *options, f"--dir={folder}", f"{run.work}/torrent"]

    def ready(self, run):
        return os.path.exists(f"{run.work}/seeded")


TOOLS = {tool.name: tool for tool in (Xget(), Nginx(), Rsync(), Diod(), Udpcast(), Uftp(), Aria2())}


def make_hook(run):
    """A program that makes the node's mark."""
    run.file("hook", '#!/bin/sh\n: > "$DONE"\n', mode=0o755)


def listens(run, port, kind="tcp"):
    """Is that port open on the master?"""
    state = {"tcp": "0A", "udp": "07"}[kind]
    tables = command_output("nsenter", "--net=/run/netns/0", "cat", f"/proc/self/net/{kind}", f"/proc/self/net/{kind}6")
    rows = [line.split() for line in tables.splitlines()]
    return any(row[1].endswith(f":{port:04X}") and row[3] == state for row in rows)


def package_version(package):
    """For those that do not tell it themselves."""
    return first_line("dpkg-query", "-W", "-f", "${Version}", package)


def first_line(*command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
        return (result.stdout + result.stderr).strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "unknown"
