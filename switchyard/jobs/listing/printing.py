"""The list of jobs as terminal output."""

from __future__ import annotations

from typing import TextIO, cast

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.broker.admin.look_through import MOST
from switchyard.console.formatting import duration
from switchyard.jobs.listing.jobs_page import JobsPage
from switchyard.jobs.listing.lines import JobLine
from switchyard.middleware.logs import printable

LONGEST_DETAIL = 60
HEADINGS = ("state", "actor", "queue", "waited", "ran", "owner", "job", "detail")


def print_page(page: JobsPage, out: OutputWrapper) -> None:
    """Print a page as a table, then where the next one begins and which queues hold more."""
    console = Console(file=cast(TextIO, out), width=None if out.isatty() else 240, highlight=False, soft_wrap=True)
    if not page.lines:
        console.print("none of the jobs looked through matches" if page.after else "no job matches")
    else:
        table = Table("due (UTC)" if page.by_due_time else "time (UTC)", *HEADINGS, box=None)
        for line in page.lines:
            # Names in a message may contain terminal escape codes and markup.
            table.add_row(*(Text(printable(cell)) for cell in _cells(line, by_due_time=page.by_due_time)))
        console.print(table)
    for queue in page.away:
        why = "its node does not answer, or has only a part of its keys"
        console.print(Text(f"{queue}: {why}; what has not ended there is missing"))
    for queue in page.cut:
        console.print(Text(f"{queue}: of what waits and is scheduled, {MOST:,} messages were looked through"))
    if page.after:
        console.print(Text(f"more: --after {page.after}"))


def _cells(line: JobLine, *, by_due_time: bool) -> tuple[str, ...]:
    detail = line.error or line.reason.replace("_", " ") or line.excerpt
    return (
        f"{(line.due if by_due_time and line.due else line.shown_at):%Y-%m-%d %H:%M:%S}",
        line.state,
        line.actor,
        line.queue,
        "–" if line.wait_ms is None else duration(line.wait_ms),
        "–" if line.ran_ms is None else duration(line.ran_ms),
        line.owner or "–",
        line.id,
        detail if len(detail) <= LONGEST_DETAIL else f"{detail[: LONGEST_DETAIL - 1]}…",
    )
