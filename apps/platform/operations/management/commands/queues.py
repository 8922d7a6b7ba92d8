"""Queues at a glance, from a terminal."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.table import Table

from apps.platform.operations import queries
from apps.platform.operations.formatting import duration, promise
from apps.platform.operations.terminal import in_words


class Command(BaseCommand):
    """List the queues. Exit 1: the broker does not answer."""

    help = "Show every queue: what waits, runs, retries and is dead, how old the oldest is, and who serves it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        with in_words("queues"):
            state = queries.yard_state()
        if state.server.refusal:
            self.stderr.write(f"queues: the broker takes no work: {state.server.refusal}. {state.server.then}")
        for item in state.server.findings:
            self.stderr.write(f"queues: {item.severity}: {item.seen}; {item.remedy}")
        found = queries.queues_of(state)
        if options["json"]:
            self.stdout.write(json.dumps([queue.as_json() for queue in found], indent=2))
            return
        terminal = self.stdout.isatty()
        console = Console(file=cast(TextIO, self.stdout), width=None if terminal else 160, highlight=False)
        console.print(_table(found))


def _table(found: list[queries.QueueState]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("queue", "waiting", "scheduled", "running", "retrying", "dead", "quarantined", "oldest", "promise"):
        table.add_column(name, justify="left" if name in ("queue", "promise") else "right")
    table.add_column("busy/slots", justify="right")
    for queue in found:
        age, objective = queue.oldest_age_ms, queue.objective_ms
        late = age is not None and objective is not None and age > objective
        slots = f"{queue.slots_busy}/{queue.slots}" if queue.pools_up else "no pool"
        counts = (queue.waiting, queue.scheduled, queue.running, queue.retrying, queue.dead, queue.quarantined)
        oldest = "" if age is None else duration(age)
        table.add_row(
            queue.queue + (" (paused)" if queue.paused else ""),
            *(f"{count:,}" for count in counts),
            f"[red]{oldest}[/red]" if late else oldest,
            promise(objective),
            slots,
        )
    return table
