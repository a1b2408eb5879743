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
        self.case, self.size = records[0]["case"], records[0]["size"]

    def ratio(self):
        return statistics.median(self.ratios) if self.ratios else None

    def median(self, value):
        return statistics.median(map(value, self.good))

    def rank(self):
        return (not self.good, self.ratio() or 0, statistics.median(self.seconds) if self.good else 0)


def summaries(records):
    """For each case a list of summaries, one for each tool, the fastest first."""
    cases = {}
    for record in sorted(records, key=lambda record: ORDER.index(record["case"]["name"])):
        tools = cases.setdefault(json.dumps(record["case"]), {})
        tools.setdefault(record["tool"], []).append(record)
    return [sorted(map(Summary, tools.values()), key=Summary.rank) for tools in cases.values()]


def by_nodes(records):
    """{tool: {number of nodes: ratio}} of the cases in which all start at once."""
    curves = {}
    for tools in summaries(records):
        for tool in tools:
            if tool.case["name"].startswith("all-") and tool.ratio():
                curves.setdefault(tool.tool, {})[tool.case["nodes"]] = tool.ratio()
    return curves


def markdown(records):
    parts = []
    if curves := by_nodes(records):
        parts.append("### How it grows with the number of nodes\n\n" + table_by_nodes(curves))
    for tools in summaries(records):
        case = tools[0].case
        parts.append(f"### {title(case)}\n\n{table_of_case(case, tools)}")
    return "\n\n".join(parts)


def table_by_nodes(curves):
    columns = sorted({nodes for curve in curves.values() for nodes in curve})
    order = sorted(curves, key=lambda tool: (-max(curves[tool]), curves[tool][max(curves[tool])]))
    rows = [
        [tool] + [f"{curves[tool][nodes]:.2f}" if nodes in curves[tool] else "" for nodes in columns]
        for tool in order
    ]
    return table(["ratio, with this many nodes:"] + [str(nodes) for nodes in columns], rows)


def title(case):
    text = f"`{case['name']}`: {case['about']}"
    if case["rate"]:
        floor = case["size"] * 8 / case["rate"]
        text += f" ({amount(case['size'])} at {case['rate'] / MBIT:g} Mbit/s: S/B is {floor:.2f} s)"
    return text


def table_of_case(case, tools):
    head = ["tool", "ratio" if case["rate"] else "MB/s a node", "from – to", "last node, s", "median node, s"]
    head += ["master sent", "CPU s/GiB", "own CPU", "idle", "runs"]
    return table(head, [row(tool) for tool in tools])


def row(tool):
    name = tool.tool + (f" ({amount(tool.size)})" if tool.size < tool.case["size"] else "")
    runs = f"{len(tool.good)}/{len(tool.records)}" if len(tool.good) < len(tool.records) else str(len(tool.good))
    if not tool.good:
        errors = [record["error"] for record in tool.records]
        return [name, "failed", errors[0].split(":")[0].replace("|", "/"), "", "", "", "", "", "", f"0/{len(errors)}"]
    # What every node has at the end; those that failed or are slow have not.
    delivered = tool.median(lambda r: len(r["done"])) * tool.size / (1024 * MIB)
    if tool.case["rate"]:
        values = [f"{ratio:.2f}" for ratio in (tool.ratio(), tool.ratios[0], tool.ratios[-1])]
    else:
        seconds = (statistics.median(tool.seconds), tool.seconds[-1], tool.seconds[0])
        speeds = [tool.size / second / 1e6 for second in seconds]
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
    stolen = sorted(record["stolen_percent"] for record in records if "stolen_percent" in record)
    lines = [
        f"- {last['cores']} cores ({last['processor']}), {last['memory_gib']} GiB, Linux {last['kernel']};",
        f"- load average before a run: median {statistics.median(loads):.1f}, at most {loads[-1]:.1f} (the run before still counts in it);",
    ]
    if stolen:  # a run that never began does not know it
        middle = statistics.median(stolen)
        lines.append(f"- taken by other virtual machines: median {middle:.0f} %, at most {stolen[-1]:.0f} %;")
    lines.append("- " + ", ".join(f"{name} {version}" for name, version in sorted(tools.items())) + ".")
    return "\n".join(lines)
