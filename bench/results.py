"""What was measured, as Markdown: one table over the number of nodes, and one for each case."""

import json
import statistics

from cases import CASES, MBIT, MIB

ORDER = [case.name for case in CASES] + ["own"]


def load(path):
    """The records in that file; of xget only those of the program that was measured last."""
    with open(path) as file:
        records = [json.loads(line) for line in file]
    programs = [record["machine"]["tools"]["xget"] for record in records if record["tool"] == "xget"]
    return [
        record
        for record in records
        if record["tool"] != "xget" or record["machine"]["tools"]["xget"] == programs[-1]
    ]


class Summary:
    """All runs of one tool in one case."""

    def __init__(self, records):
        self.records = records
        self.tool = records[0]["tool"]
        self.good = [record for record in records if "error" not in record]
        self.ratios = sorted(record["ratio"] for record in self.good if "ratio" in record)
        self.seconds = sorted(record["seconds"] for record in self.good)
        self.about = records[0]["about"]

    def ratio(self):
        return statistics.median(self.ratios) if self.ratios else None

    def median(self, value):
        return statistics.median(map(value, self.good))

    def rank(self):
        return (not self.good, self.ratio() or 0, statistics.median(self.seconds) if self.good else 0)


def summaries(records):
    """{case: [a summary for each tool, the fastest first]}"""
    cells = {}
    for record in records:
        cells.setdefault((record["case"], record["tool"]), []).append(record)
    result = {}
    for (case, _), runs in sorted(cells.items(), key=lambda cell: ORDER.index(cell[0][0])):
        result.setdefault(case, []).append(Summary(runs))
    return {case: sorted(tools, key=Summary.rank) for case, tools in result.items()}


def by_nodes(records):
    """{tool: {number of nodes: ratio}} of the cases in which all start at once."""
    curves = {}
    for case, tools in summaries(records).items():
        for tool in tools:
            if case.startswith("all-") and tool.ratio():
                curves.setdefault(tool.tool, {})[tool.about["nodes"]] = tool.ratio()
    return curves


def markdown(records):
    parts = []
    if curves := by_nodes(records):
        parts.append("### How it grows with the number of nodes\n\n" + table_by_nodes(curves))
    for case, tools in summaries(records).items():
        parts.append(f"### {title(tools)}\n\n" + table_of_case(tools))
    return "\n\n".join(parts)


def table_by_nodes(curves):
    columns = sorted({nodes for curve in curves.values() for nodes in curve})
    order = sorted(curves, key=lambda tool: (-max(curves[tool]), curves[tool][max(curves[tool])]))
    rows = [
        [tool] + [f"{curves[tool][nodes]:.2f}" if nodes in curves[tool] else "" for nodes in columns]
        for tool in order
    ]
    return table(["ratio, with this many nodes:"] + [str(nodes) for nodes in columns], rows)


def title(tools):
    about = max((tool.about for tool in tools), key=lambda about: about["size"])
    text = f"`{tools[0].records[0]['case']}`: {about['about']}"
    if about["rate"]:
        floor = about["size"] * 8 / about["rate"]
        text += f" ({amount(about['size'])} at {about['rate'] / MBIT:g} Mbit/s: S/B is {floor:.2f} s)"
    return text


def table_of_case(tools):
    size = max(tool.about["size"] for tool in tools)
    shaped = tools[0].about["rate"]
    head = ["tool", "ratio" if shaped else "MB/s a node", "from – to", "last node, s", "median node, s"]
    head += ["master sent", "CPU s/GiB", "own CPU", "idle", "runs"]
    return table(head, [row(tool, tool.about["size"] < size) for tool in tools])


def row(tool, less):
    name = tool.tool + (f" ({amount(tool.about['size'])})" if less else "")
    runs = f"{len(tool.good)}/{len(tool.records)}" if len(tool.good) < len(tool.records) else str(len(tool.good))
    if not tool.good:
        errors = [record["error"] for record in tool.records]
        return [name, "failed", errors[0].split(":")[0].replace("|", "/"), "", "", "", "", "", "", f"0/{len(errors)}"]
    about = tool.about
    # What every node has at the end; those that failed or are slow have not.
    delivered = tool.median(lambda r: len(r["done"])) * about["size"] / (1024 * MIB)
    if about["rate"]:
        values = [f"{ratio:.2f}" for ratio in (tool.ratio(), tool.ratios[0], tool.ratios[-1])]
    else:
        speeds = [about["size"] / seconds / 1e6 for seconds in (statistics.median(tool.seconds), tool.seconds[-1], tool.seconds[0])]
        values = [f"{speed:.0f}" for speed in speeds]
    own = tool.median(lambda r: r["cpu_seconds"] / r["wall_seconds"] / r["machine"]["cores"])
    return [
        name,
        values[0],
        f"{values[1]} – {values[2]}" if len(tool.good) > 1 else "",
        f"{statistics.median(tool.seconds):.2f}",
        f"{tool.median(lambda r: statistics.median(r['done'].values())):.2f}",
        f"{tool.median(lambda r: r['master_sent']):.2f} ×",
        f"{tool.median(lambda r: r['cpu_seconds']) / delivered:.2f}",
        f"{100 * own:.0f} %",
        f"{tool.median(lambda r: r['idle_percent']):.0f} %",
        runs,
    ]


def table(head, rows):
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        [head[0].ljust(widths[0])] + [text.rjust(width) for text, width in zip(head[1:], widths[1:])],
        ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]],
    ]
    lines += [
        [row[0].ljust(widths[0])] + [text.rjust(width) for text, width in zip(row[1:], widths[1:])] for row in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def amount(size):
    for unit, name in ((1024 * MIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"


def machine(records):
    """What it was measured on, and with what."""
    last = records[-1]["machine"]
    tools = {}
    for record in records:
        tools |= record["machine"]["tools"]
    loads = sorted(record["load_before"] for record in records)
    return "\n".join(
        [
            f"- {last['cores']} cores ({last['processor']}), {last['memory_gib']} GiB of memory, Linux {last['kernel']};",
            f"- load average before a run: median {statistics.median(loads):.1f}, at most {loads[-1]:.1f};",
            "- " + ", ".join(f"{version}" for name, version in sorted(tools.items())) + ".",
        ]
    )
