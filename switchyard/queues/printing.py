"""Queues as terminal output, with the sentences of their pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TextIO, cast

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration, promise
from switchyard.middleware.logs import printable
from switchyard.operations import queries
from switchyard.operations.diagnosis import judged_now
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.yard.state_words import shown_rows
from switchyard.queues.facts import QueueView, all_queues_sentence
from switchyard.queues.queries import yard_state
from switchyard.queues.stock import Imported

# Heading -> figure. Workers hold more than they run: the messages that they prefetched, too.
COUNTED = {"waiting": "depth", "scheduled": "scheduled", "parked": "parked", "at workers": "running"}
COUNTED |= {name: name for name in ("retrying", "dead", "quarantined")}
REFUSALS_SHOWN = 5


def print_queues(state: queries.YardState, out: OutputWrapper) -> None:
    """Print every queue."""
    console = Console(file=cast(TextIO, out), width=None if out.isatty() else 160, highlight=False)
    console.print(_table(state))


def print_sentences(state: queries.YardState, out: OutputWrapper) -> None:
    """Print what the page of all queues says first, and what the overview says of broker, pools and queues."""
    facts = facts_of(state)
    rows = [row for row in shown_rows(facts) if row.kind == "queue"]
    out.write(f"queues: {printable(all_queues_sentence(rows, away=False))}.")
    for found in judged_now(facts):
        step = f" Next: {found.finding.next}" if found.finding.next else ""
        out.write(printable(f"queues: {found.finding.severity}: {found.sentence}{step}"))


def status_lines(view: QueueView) -> list[str]:
    """Return what a queue's page says, and what the overview says of the queue, one sentence a line."""
    lines = [f"{view.queue.name}: {view.row.state.word.lower()}; {view.row.promise}", view.lead]
    if view.holders and view.holding:
        lines.append(f"{view.holders[0].actor} {view.holding}.")
    if view.held_back:
        lines.append(f"Held for later: {view.held_back}.")
    for purge in view.purges:
        lines.append(f"{purge.sentence} {purge.end}")
    if view.pause is not None:
        lines.append(f"{view.pause.sentence} {view.pause.end}")
    if view.stats is not None:
        stats = view.stats
        lines.append(f"{view.row.held:,} held for later, {stats.retry.total:,} retrying, {stats.dead:,} dead.")
    if view.node:
        lines.append(f"It is on node {view.node}.")
    state = yard_state()
    for found in judged_now(facts_of(state)) if state is not None else ():
        if found.finding.subject == view.queue.name:
            lines += [found.sentence, *([f"Then: {found.finding.then}"] if found.finding.then else [])]
            lines += [f"Next: {found.finding.next}"] if found.finding.next else []
    return lines


def _table(state: queries.YardState) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("queue", *COUNTED, "oldest", "promise", "busy/slots"):
        table.add_column(name, justify="left" if name in ("queue", "promise") else "right")
    for row in queries.queues_json(state):
        queue, age_s = declared_yard().queue_of(row["queue"]), row["oldest_age_seconds"]
        late = age_s is not None and queue.objective_ms is not None and age_s * 1_000 > queue.objective_ms
        table.add_row(
            queue.name + _paused(row),
            *(f"{row[name]:,}" for name in COUNTED.values()),
            Text("" if age_s is None else duration(age_s * 1_000), style="red" if late else ""),
            promise(queue.objective_ms, queue.done_objective_ms),
            f"{row['slots_busy']}/{row['slots']}" if row["pools_up"] else "no pool",
        )
    return table


def _paused(row: dict[str, Any]) -> str:
    if not row["paused"]:
        return ""
    until = row["pause"] and row["pause"]["until"]
    return f" (paused until {datetime.fromisoformat(until):%H:%M:%S} UTC)" if until else " (paused)"


def import_lines(found: Imported) -> list[str]:
    """Return the result of the import of a queue as lines."""
    lines = [f"{found.queue}: {counted(found.moved, 'message')} imported"]
    if found.unreadable:
        lines.append(f"{found.queue}: {found.unreadable:,} are no messages of Dramatiq; they stay on its server")
    lines += [f"{found.queue}: refused, it stays where it is: {refusal}" for refusal in found.refused[:REFUSALS_SHOWN]]
    if (more := len(found.refused) - REFUSALS_SHOWN) > 0:
        lines.append(f"{found.queue}: {more:,} more were refused")
    if found.cut:
        lines.append(
            f"{found.queue}: messages that wait behind these were not reached: "
            "mend the refused ones or take them out, and run this again"
        )
    held = (found.left or 0) - found.unreadable - len(found.refused)
    if held > 0:
        lines.append(
            f"{found.queue}: workers of stock Dramatiq hold {held:,}, or one that was killed held them: "
            "stop all of them, and run this again after a minute"
        )
    return lines
