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
    of: dict = None  # what it is a part of: see fitted()

    @property
    def asked(self):
        """The case as it is in the list, for the record: all tools in it are compared."""
        return self.of or {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("tools", "rounds", "of")
        }

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


def fitted(case, tool):
    """The case as that tool runs it.

    What one server sends to everybody takes N times S/B whatever S is, and always the same: one round
    tells all there is to know, and with many nodes a part of the content does. One round is enough,
    too, for what a multicast sender does at the pace of the slowest, or in vain.
    """
    one_by_one = tool.one_by_one and case.nodes > 1 and case.rate
    if one_by_one and case.nodes >= 16 and case.size >= 16 * MIB:
        part = 4 if case.nodes < 32 else 16
        case = dataclasses.replace(case, size=case.size // part, files=max(1, case.files // part), of=case.asked)
    if one_by_one or tool.pace_of_slowest and (case.slow or case.killed or case.spread):
        case = dataclasses.replace(case, rounds=1)
    return case


GROUPS = ("xget", "aria2", "udpcast", "uftp")

def sixteen(name, about, **more):
    """16 nodes, and 64 MiB at 100 Mbit/s."""
    return Case(name, f"16 nodes{about}", 16, 64 * MIB, 100 * MBIT, **more)


CASES = [
    Case("all-1", "1 node", 1, 64 * MIB, 100 * MBIT, rounds=2),
    Case("all-4", "4 nodes at once", 4, 64 * MIB, 100 * MBIT, rounds=2),
    sixteen("all-16", " at once"),
    Case("all-32", "32 nodes at once", 32, 64 * MIB, 50 * MBIT, tools=(*GROUPS, "nginx"), rounds=2),
    Case("all-64", "64 nodes at once", 64, 64 * MIB, 25 * MBIT, tools=(*GROUPS, "nginx"), rounds=2),
    sixteen("spread-16", ", their starts spread over S/B", spread=1, tools=GROUPS, rounds=2),
    sixteen(
        "slow-16",
        ", 4 of them with links ten times slower; the times are those of the 12 others",
        slow=4,
        tools=GROUPS,
        rounds=2,
    ),
    sixteen("killed-16", ", 2 of them lose power half-way", killed=2, tools=GROUPS, rounds=2),
    sixteen("master-16", ", the master dies as soon as every chunk is out", master_dies=True, tools=("xget",)),
    Case("small-file", "16 nodes, one file of 1 MiB", 16, MIB, 100 * MBIT),
    Case("many-files", "16 nodes, 20,000 files of 4 KiB", 16, 20_000 * 4096, 100 * MBIT, files=20_000, rounds=2),
    Case("large-file", "8 nodes, 1 GiB, no shaping", 8, 1024 * MIB, 0, tools=("xget", "aria2", "nginx"), rounds=1),
    Case("single", "1 node, 1 GiB, no shaping", 1, 1024 * MIB, 0, tools=("xget", "nginx", "rsync", "diod")),
]

QUICK = [
    dataclasses.replace(case, size=16 * MIB, rounds=1) for case in CASES if case.name in ("all-4", "all-16")
]
