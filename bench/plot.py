"""The ratios over the number of nodes, as an SVG that is legible on light and on dark."""

import math

WIDTH, HEIGHT = 760, 520
LEFT, RIGHT, TOP, BOTTOM = 60, 120, 50, 60
RATIOS = (1, 1.25, 1.5, 2, 3, 5, 10, 20, 40, 64)
LABEL_HEIGHT = 16
# One for each tool; each has enough contrast on white and on black.
COLOURS = {
    "xget": "#d4351c",
    "nginx": "#7a7a7a",
    "rsync": "#a06a2c",
    "diod": "#8f8f3a",
    "udpcast": "#2e86c1",
    "uftp": "#1f9d6b",
    "aria2": "#9b59d0",
}
STYLE = """
svg { font: 13px system-ui, sans-serif; color: #222 }
.paper { fill: #fff }
text { fill: currentColor }
.grid { stroke: currentColor; opacity: .15 }
.curve { fill: none; stroke-width: 1.8 }
.xget { stroke-width: 3.5 }
.title { font-size: 15px; font-weight: 600 }
@media (prefers-color-scheme: dark) { svg { color: #e6e6e6 } .paper { fill: #0d1117 } }
"""


def svg(curves):
    """curves: {tool: {number of nodes: ratio}}"""
    nodes = sorted({count for curve in curves.values() for count in curve})
    top = max(ratio for curve in curves.values() for ratio in curve.values())
    x = scale(nodes[0], nodes[-1], LEFT, WIDTH - RIGHT)
    y = scale(RATIOS[0], max(top, 2), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' aria-label="Time until the last node is done, by the number of nodes">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        text(LEFT, 26, "Time until the last node is done, over S/B (1 is the least there can be)", "title"),
    ]
    for ratio in RATIOS:
        if ratio <= top:
            parts.append(line(LEFT, y(ratio), WIDTH - RIGHT, y(ratio)))
            parts.append(text(LEFT - 8, y(ratio) + 4, f"{ratio:g}", anchor="end"))
    for count in nodes:
        parts.append(line(x(count), TOP, x(count), HEIGHT - BOTTOM))
        parts.append(text(x(count), HEIGHT - BOTTOM + 20, str(count), anchor="middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "nodes that start at once", anchor="middle"))
    for tool, curve in sorted(curves.items(), key=lambda item: item[0] == "xget"):  # that lies on top
        parts += drawn(tool, [(x(count), y(ratio)) for count, ratio in sorted(curve.items())])
    parts += labels({tool: curve_end(curve, x, y) for tool, curve in curves.items()})
    return "\n".join(parts + ["</svg>"]) + "\n"


def scale(low, high, start, end):
    """A logarithmic one; the whole width for a single value."""
    span = math.log2(high / low) or 1
    return lambda value: round(start + (end - start) * math.log2(value / low) / span, 1)


def drawn(tool, points):
    colour = COLOURS.get(tool, "#888")
    path = " ".join(f"{x},{y}" for x, y in points)
    yield f'<polyline class="curve {tool}" stroke="{colour}" points="{path}"/>'
    for x, y in points:
        yield f'<circle cx="{x}" cy="{y}" r="{4 if tool == "xget" else 3}" fill="{colour}"/>'


def curve_end(curve, x, y):
    last = max(curve)
    return x(last), y(curve[last])


def labels(ends):
    """Each curve's name at its end, moved up where it would lie on another of the same column."""
    placed = []
    for tool, (x, y) in sorted(ends.items(), key=lambda item: -item[1][1]):
        at = y
        while any(abs(at - other) < LABEL_HEIGHT and abs(x - there) < 60 for there, other in placed):
            at -= 1
        placed.append((x, at))
        colour = COLOURS.get(tool, "#888")
        yield f'<text x="{x + 8}" y="{at + 4:.1f}" style="fill:{colour};font-weight:600">{tool}</text>'


def line(x1, y1, x2, y2):
    return f'<line class="grid" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def text(x, y, words, kind="", anchor="start"):
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{kind}>{words}</text>'
