"""One run: one tool brings one content to all nodes of one case.

The clock starts when all nodes are let go; what serves is ready by then. A node is done when its
client's process has ended with success, or, for a tool that goes on serving in the same process, when
the hook that the tool calls at that moment has made a file (`marks`). Both are read off the same clock.
"""

import os
import signal
import subprocess
import time

from network import Network, address, go_to
from sandbox import processes

TICK_SECONDS = 0.02
READY_SECONDS = 60
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Run:
    """What an adapter may know."""

    def __init__(self, case, tool, content, work):
        self.case, self.tool, self.content = case, tool, content
        self.nodes, self.rate = case.nodes, case.rate
        self.work, self.source = work, f"{work}/source"
        self.master = address(0)
        self.network = None
        self.ended = {}  # pid: (time, wait status)
        self.cpu_seconds = 0.0

    def copy(self, node):
        return f"{self.work}/copy{node}"

    def mark(self, node):
        return f"{self.work}/done{node}"

    def log(self, host):
        return f"{self.work}/log{host}"

    def file(self, name, text, mode=0o644):
        """Writes a file that the tool needs; its path."""
        path = f"{self.work}/{name}"
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    # ---- processes

    def start(self, host, command, gate=None, delay=0.0):
        """Starts it on that host; with a gate, once that is open and the delay over."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            go_to(host)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            log = os.open(self.log(host), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.work)
            os.environ["DONE"] = self.mark(host)
            if gate:
                os.close(gate[1])
                os.read(gate[0], 1)
                time.sleep(delay)
            os.execvp(command[0], command)
        except BaseException as error:
            os.write(2, f"{command[0]}: {error}\n".encode())
        os._exit(127)

    def reap(self):
        """Notes who has ended. Being the first process here, this one inherits all orphans."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.ended[pid] = (time.time(), os.waitstatus_to_exitcode(status))
            self.cpu_seconds += usage.ru_utime + usage.ru_stime

    def wait_for(self, condition):
        """Until what was started is ready; the processes that serve must not end before."""
        deadline = time.time() + READY_SECONDS
        while not condition():
            self.reap()
            if time.time() > deadline or self.ended:
                raise RuntimeError(f"the server does not serve: {tail(self.log(0))}")
            time.sleep(0.02)

    def end(self, pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def end_all(self):
        while left := processes():
            self.end(left)
            self.reap()
            time.sleep(0.005)


def measure(case, tool, content, work):
    """Does it, and returns the record of it: a dict that says `error` if it could not be done."""
    run = Run(case, tool, content, work)
    # The time of an end is that of its SIGCHLD.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    record = {"load_before": os.getloadavg()[0]}
    try:
        with Network(case.rates()) as run.network:
            try:
                result, first_failure = transfer(run)
                record |= result
            finally:
                run.end_all()
                record["cpu_seconds"] = round(run.cpu_seconds - record.pop("cpu_before", 0), 3)
        faults = [fault for node in record["done"] if (fault := content.fault(run.copy(node)))]
        record["checked"] = len(record["done"])
        if faults:
            raise RuntimeError(f"{len(faults)} wrong copies, the first: {faults[0]}")
        if record["did_not_happen"]:
            raise RuntimeError(f"over before this could happen: {', '.join(record['did_not_happen'])}")
        if missing := record["expected"] - len(record["done"]):
            raise RuntimeError(f"{missing} of {record['expected']} nodes did not finish: {first_failure}")
        record["seconds"] = max(record["done"].values())
        if case.rate:
            record["ratio"] = round(record["seconds"] / case.floor(), 4)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        record["error"] = str(error)
    return record


def transfer(run):
    case, tool = run.case, run.tool
    for node in range(1, run.nodes + 1):
        os.mkdir(run.copy(node))
    tool.prepare(run)
    for command in tool.servers(run):
        run.start(0, command)
    run.wait_for(lambda: tool.ready(run))
    gate = os.pipe()
    delays = case.delays()
    clients = {
        run.start(node, tool.client(run, node), gate, delays[node]): node for node in range(1, run.nodes + 1)
    }
    if sender := tool.sender(run):
        run.start(0, sender, gate)
    time.sleep(0.3)  # so that all of them stand at the gate
    sent_before, cpu_before, host_before = run.network.sent_bytes(0), cpu_of(processes()), host_cpu()
    cpu_before += run.cpu_seconds
    began = time.time()
    os.close(gate[1])
    os.close(gate[0])

    watched = set(clients.values()) - set(case.slow_nodes())
    result, first_failure = watch(run, clients, watched, began, delays)
    seconds = time.time() - began
    total, idle, stolen = (after - before for before, after in zip(host_before, host_cpu()))
    result |= {
        "wall_seconds": round(seconds, 3),
        "master_sent": round((run.network.sent_bytes(0) - sent_before) / run.content.size, 4),
        "idle_percent": round(100 * idle / max(1, total), 1),
        "stolen_percent": round(100 * stolen / max(1, total), 1),
        "cpu_before": cpu_before,
    }
    return result, first_failure


def watch(run, clients, watched, began, delays):
    """Until all that are watched are done, have failed, or the time is over: who did, and why not."""
    case = run.case
    deadline = began + case.limit_seconds(run.tool)
    done, failures, killed, happened = {}, {}, [], {}
    events = case.events()
    while time.time() < deadline:
        waiting = watched - set(done) - set(failures) - set(killed)
        if not waiting:
            break
        signal.sigtimedwait([signal.SIGCHLD], TICK_SECONDS)
        run.reap()
        for pid, node in clients.items():
            if node not in waiting:
                continue
            if at := done_at(run, pid, node):
                done[node] = round(at - began - delays[node], 4)
            elif pid in run.ended and run.ended[pid][1] != 0:
                failures[node] = f"exit code {run.ended[pid][1]}: {tail(run.log(node))}"
        for event in list(events):
            if event.is_due(run, time.time() - began):
                events.remove(event)
                killed += event.happen(run)
                happened[event.name] = round(time.time() - began, 2)
    expected = len(watched - set(killed))
    for node in killed:
        done.pop(node, None)
        failures.pop(node, None)
    result = {
        "done": done,
        "expected": expected,
        "killed": killed,
        "happened": happened,
        "did_not_happen": [event.name for event in events],
    }
    return result, next(iter(failures.values()), f"not done after {time.time() - began:.0f} s")


def done_at(run, pid, node):
    """When that node had everything, or None."""
    if run.tool.marks:
        try:
            return os.stat(run.mark(node)).st_mtime
        except FileNotFoundError:
            return None
    when, code = run.ended.get(pid, (None, None))
    return when if code == 0 else None


def tail(path):
    try:
        with open(path, errors="replace") as file:
            return " / ".join(file.read().strip().splitlines()[-2:])[-200:]
    except FileNotFoundError:
        return "(no log)"


def cpu_of(pids):
    """Seconds of CPU that these have used so far."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                total += sum(int(ticks) for ticks in file.read().rpartition(")")[2].split()[11:15])
        except FileNotFoundError:
            pass
    return total / CLOCK_TICKS


def host_cpu():
    """All of the machine's time so far, the idle part, and what a host of virtual machines took of it."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4], ticks[7]
