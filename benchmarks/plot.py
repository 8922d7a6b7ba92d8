"""Bar chart of the main figures as SVG, without any library."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.figures import spread
from benchmarks.judging import Values
from benchmarks.peers import PEERS
from benchmarks.report import number, title_of

PANELS = {
    "drain_1x8_per_s": "Drain of no-ops, 1 process × 8 slots, tasks a second",
    "drain_2x8_per_s": "The same, 2 processes",
    "enqueue_per_s": "Enqueue one by one, tasks a second",
    "idle_p50_ms": "Idle, enqueue to start, median, ms (logarithmic)",
}
LOGARITHMIC = {"idle_p50_ms"}
WIDTH, NAMES, VALUES, BAR, GAP, HEADING = 860, 300, 90, 16, 6, 34
OUR_COLOUR, THEIR_COLOUR = "#1f6feb", "#9aa4b2"


def draw(values: Values) -> str:
    """Return a panel for each main figure that was measured; the line on a bar is the range of its runs."""
    parts: list[str] = []
    y = 10
    for figure, heading in PANELS.items():
        runs = {peer: [value for value in of if value is not None] for peer, of in values.get(figure, {}).items()}
        runs = {peer: of for peer, of in runs.items() if of}
        if runs:
            parts.append(_text(10, y + 18, heading, weight="bold"))
            y = _panel(parts, y + HEADING, runs, logarithmic=figure in LOGARITHMIC)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        f'font-family="system-ui, sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(parts: list[str], y: int, runs: Mapping[str, Sequence[float]], *, logarithmic: bool) -> int:
    spreads = {peer: spread(values) for peer, values in runs.items()}
    highest = max(row.highest for row in spreads.values())
    lowest = min(row.lowest for row in spreads.values())
    room = WIDTH - NAMES - VALUES

    def length(value: float) -> float:
        if logarithmic:
            return room * (0.05 + 0.95 * math.log(value / lowest) / max(math.log(highest / lowest), 1e-9))
        return room * value / highest

    ours = {peer.name for peer in PEERS.values() if peer.ours}
    for peer, row in sorted(spreads.items(), key=lambda entry: entry[1].median, reverse=not logarithmic):
        colour = OUR_COLOUR if peer in ours else THEIR_COLOUR
        middle = y + BAR / 2
        parts.append(_text(NAMES - 8, y + BAR - 3, title_of(peer), anchor="end"))
        parts.append(f'<rect x="{NAMES}" y="{y}" width="{length(row.median):.1f}" height="{BAR}" fill="{colour}"/>')
        ends = NAMES + length(row.lowest), NAMES + length(row.highest)
        parts.append(f'<path d="M{ends[0]:.1f} {middle}H{ends[1]:.1f}" stroke="black"/>')
        parts.append(_text(NAMES + max(length(row.highest), 0) + 6, y + BAR - 3, number(row.median)))
        y += BAR + GAP
    return y + GAP


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
