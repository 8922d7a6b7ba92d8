"""The live screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.sample.journal import SentJob, count_states
from demo.view.snapshot import Snapshot
from demo.view.text import memory
from switchyard.console.formatting import duration

TONES = {"plain": "", "good": "green", "bad": "bold red", "wait": "yellow"}
STATES = {"succeeded": "green", "running": "cyan", "retrying": "yellow", "scheduled": "yellow", "dead": "bold red"}
FRAME_ROWS = 2
ROWS_FOR_WORK, ROWS_FOR_ADDRESSES = 28, 40  # smaller terminals leave these panels out; the start prints the addresses
LEAST_NEWS_LINES = 3
BAR_WIDTH = 16


def render(seen: Snapshot, addresses: list[tuple[str, str]], *, height: int) -> RenderableType:
    """Return the screen for one moment.

    Args:
        height: Rows of the terminal; the news gets the rows that the other panels leave.
    """
    tables = Table.grid(padding=(0, 2), expand=True)
    tables.add_column(ratio=3)
    tables.add_column(ratio=2)
    tables.add_row(_panel("Queues", _queues(seen.queues)), _panel("Pools", _pools(seen)))
    rows: list[RenderableType] = [_headline(seen)]
    used = 1 + FRAME_ROWS + 1 + max(len(seen.queues), len(seen.pools))
    if height >= ROWS_FOR_ADDRESSES:
        rows.append(_addresses(addresses))
        used += len(addresses)
    rows.append(tables)
    if seen.jobs and height >= ROWS_FOR_WORK:
        rows.append(_panel("Sample work", _work(seen.jobs)))
        used += FRAME_ROWS + len(_apps(seen.jobs))
    news = height - used - FRAME_ROWS - 1
    if news >= LEAST_NEWS_LINES:
        rows.append(_panel(_news_title(addresses), _lines(seen, news)))
    return Group(*rows)


def _news_title(addresses: list[tuple[str, str]]) -> str:
    log = dict(addresses).get("Log of the jobs", "")
    return f"What just happened, all of it in {log}" if log else "What just happened"


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim", padding=(0, 1))


def _headline(seen: Snapshot) -> Text:
    line = Text(" Switchyard ", style="bold reverse")
    line.append(f"  up {duration(seen.up_s * 1_000)}", style="not bold not reverse")
    line.append(f"   memory {memory(seen.memory_bytes)}", style="not bold not reverse")
    line.append(f"   mails {seen.mails}", style="not bold not reverse")
    line.append("   Ctrl-C stops it; data stay", style="dim not bold not reverse")
    return line


def _addresses(addresses: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, address in addresses:
        grid.add_row(Text(f" {name}", style="bold"), Text(address))
    return grid


def _queues(queues: list[dict[str, Any]]) -> RenderableType:
    table = Table(box=None, expand=True, pad_edge=False)
    table.add_column("queue")
    for name in ("waiting", "running", "retrying", "dead", "oldest"):
        table.add_column(name, justify="right")
    for queue in queues:
        age_s = queue.get("oldest_age_seconds")
        table.add_row(
            str(queue.get("queue", "")),
            _number(queue.get("depth", 0) + queue.get("scheduled", 0)),
            _number(queue.get("running", 0), "cyan"),
            _number(queue.get("retrying", 0), "yellow"),
            _number(queue.get("dead", 0), "bold red"),
            Text("-", style="dim") if age_s is None else Text(duration(age_s * 1_000)),
        )
    return table


def _pools(seen: Snapshot) -> RenderableType:
    table = Table(box=None, expand=True, pad_edge=False)
    table.add_column("pool")
    table.add_column("busy", ratio=1)
    table.add_column("slots", justify="right")
    for pool in seen.pools:
        bar = _bar(pool.busy, pool.slots, "cyan")
        state = "" if pool.state == "up" else f" {pool.state}"
        table.add_row(pool.pool, bar, f"{pool.busy}/{pool.slots}{state}")
    return table


def _work(jobs: list[SentJob]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for app in _apps(jobs):
        of_app = [job for job in jobs if job.app == app]
        ended = sum(job.has_ended for job in of_app)
        line = Text()
        for state, count in count_states(of_app).items():
            line.append(f"{count} {state}  ", style=STATES.get(state, ""))
        table.add_row(app, _bar(ended, len(of_app), "green"), f"{ended}/{len(of_app)}", line)
    return table


def _apps(jobs: Iterable[SentJob]) -> list[str]:
    return list(dict.fromkeys(job.app for job in jobs))


def _lines(seen: Snapshot, count: int) -> Text:
    lines = Text(no_wrap=True, overflow="ellipsis")
    for event in seen.lines[-count:]:
        lines.append(f"{event.at:%H:%M:%S}  ", style="dim")
        lines.append(f"{event.text}\n", style=TONES.get(event.tone, ""))
    lines.rstrip()
    return lines or Text("nothing yet", style="dim")


def _bar(done: int, total: int, style: str) -> Text:
    filled = min(BAR_WIDTH, -(-BAR_WIDTH * done // max(total, 1)))
    return Text("━" * filled, style=style).append("━" * (BAR_WIDTH - filled), style="bright_black")


def _number(value: int, style: str = "") -> Text:
    return Text(str(value), style=style if value else "dim")
