"""The cases: how many nodes, what links, what content, and what goes wrong meanwhile."""

import dataclasses

MBIT = 10**6
MIB = 1 << 20
SLOW = 10  # how many times slower a slow link is


@dataclasses.dataclass
class Case:
    name: str
    about: str
    nodes: int
    size: int  # bytes
    rate: int  # bit/s of every link, 0 for no shaping
    files: int = 1
    spread: float = 0  # the starts are spread over that many times S/B
    slow: int = 0  # so many nodes have a slow link
    killed: int = 0  # so many nodes lose power half-way
    master_dies: bool = False
    tools: tuple = ()  # these only; all that can do it if empty
    rounds: int = 3

    def floor(self):
        """S/B: no tool can be faster. Without shaping a guess, for the limits of time only."""
        if self.rate:
            return self.size * 8 / self.rate
        return 2 + self.size * self.nodes / 400e6

    def rates(self):
        """By host, the master first."""
        slow = self.slow_nodes()
        return [self.rate // SLOW if host in slow else self.rate for host in range(self.nodes + 1)]

    def slow_nodes(self):
        return some_of(self.nodes, self.slow)

    def delays(self):
        """When each node starts."""
        step = self.spread * self.floor() / max(1, self.nodes - 1)
        return {node: step * (node - 1) for node in range(1, self.nodes + 1)}

    def limit_seconds(self, tool):
        times = 1.3 * self.nodes if tool.one_by_one else 6
        if self.slow:
            times = max(times, 1.3 * SLOW)
        return 20 + self.floor() * (times + self.spread)

    def estimate_seconds(self, tool):
        """How long a round of it should take, with all that belongs to it."""
        times = 1.06 * max(1, self.nodes - self.slow) if tool.one_by_one else tool.usual_ratio
        if not self.rate:
            times = 1.5
        if self.slow and tool.pace_of_slowest:
            times = SLOW
        return 3 + self.nodes * 0.06 + self.size * self.nodes / 1e9 + self.floor() * (times + self.spread)

    def events(self):
        victims = some_of(self.nodes, self.killed)
        return [PowerFails(self.floor() / 2, victims)] * bool(victims) + [MasterDies()] * self.master_dies


def some_of(nodes, count):
    """So many of the nodes, evenly spread."""
    return [1 + (2 * i + 1) * nodes // (2 * count) for i in range(count)]


class PowerFails:
    """The cable first, so that nobody hears of it."""

    name = "nodes lose power"

    def __init__(self, at, victims):
        self.at, self.victims = at, victims

    def is_due(self, run, seconds):
        return seconds >= self.at

    def happen(self, run):
        for node in self.victims:
            run.network.unplug(node)
            run.end(run.network.processes(node))
        return self.victims


class MasterDies:
    """As soon as every chunk is with some node."""

    name = "the master dies"
    asked = 0

    def is_due(self, run, seconds):
        if seconds < self.asked + 0.1:
            return False
        self.asked = seconds
        return run.tool.all_is_out(run)

    def happen(self, run):
        run.network.unplug(0)
        run.end(run.network.processes(0))
        return []


AT_ONCE = [(1, 64, 100), (4, 64, 100), (16, 64, 100), (32, 32, 50), (64, 16, 25)]

CASES = [
    *(
        Case(f"all-{nodes}", f"{nodes} nodes at once", nodes, mib * MIB, mbit * MBIT)
        for nodes, mib, mbit in AT_ONCE
    ),
]

QUICK = []
