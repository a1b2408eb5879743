"""The tools: how each is started, and how it is known that a node has everything.

An adapter is a class. It gets the `Run` of measure.py: where the source is, where copy(node) goes, the
master's address, and start() for what it needs besides.
"""

import os
import shutil
import subprocess

from network import run as command_output

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PORT = 20004


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
            "nsenter", "--net=/run/netns/0", xget_program(), "--status", "-n", run.master, "-p", str(PORT)
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
            f"""worker_processes 1; daemon off; pid {run.work}/nginx.pid; error_log stderr;
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


TOOLS = {tool.name: tool for tool in (Xget(), Nginx())}


def listens(run, port):
    """Is that TCP port open on the master?"""
    table = command_output("nsenter", "--net=/run/netns/0", "cat", "/proc/self/net/tcp", "/proc/self/net/tcp6")
    rows = [line.split() for line in table.splitlines()]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows if len(row) > 3)


def first_line(*command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
        return (result.stdout + result.stderr).strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "unknown"
