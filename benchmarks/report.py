"""Tables for people: each figure of each peer, and the verdict on each target."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.figures import spread
from benchmarks.judging import Judgement, Values
from benchmarks.peers import PEERS


def show_figures(console: Console, values: Values) -> None:
    """Print a table for each figure: median and range."""
    for figure, of_peers in values.items():
        table = Table(title=figure, title_justify="left", title_style="bold", box=None)
        table.add_column("peer")
        for heading in ("median", "lowest", "highest", "runs"):
            table.add_column(heading, justify="right")
        for peer, runs in of_peers.items():
            present = [value for value in runs if value is not None]
            if present:
                row = spread(present)
                cells = [number(value) for value in (row.median, row.lowest, row.highest)]
                table.add_row(title_of(peer), *cells, str(row.runs))
        console.print(table)
        console.print()


def show_judgements(console: Console, judgements: Sequence[Judgement]) -> None:
    """Print the targets that were measured, and name the others."""
    table = Table(title="Targets", title_justify="left", title_style="bold", box=None)
    table.add_column("target")
    for heading in ("median", "quartile", "holds"):
        table.add_column(heading, justify="right")
    for entry in judgements:
        if entry.median is not None and entry.quartile is not None:
            table.add_row(entry.target, number(entry.median), number(entry.quartile), "yes" if entry.holds else "NO")
    if table.row_count:
        console.print(table)
    left_out = sum(entry.holds is None for entry in judgements)
    if left_out:
        console.print(f"{left_out} of {len(judgements)} targets were not measured this time.", style="dim")


def title_of(peer: str) -> str:
    """Return the name of a peer in tables."""
    return PEERS[peer].title if peer in PEERS else peer


def number(value: float) -> str:
    """Return a figure with three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
