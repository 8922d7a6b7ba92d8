"""State words of queues that need more than the broker's counts: Blocked, Flooded and Limited."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from switchyard.conf import declared_yard
from switchyard.operations.findings import held, lateness
from switchyard.operations.findings.facts import YardFacts, flood_of
from switchyard.operations.rows import Row, RowStatus


def shown_rows(facts: YardFacts) -> list[Row]:
    """Return the rows of the yard with the words that pages show."""
    return [shown_row(row, facts) for row in facts.rows]


def shown_row(row: Row, facts: YardFacts) -> Row:
    """Return a row with the word that pages show."""
    if row.kind != "queue":
        return row
    if row.state.level == "ok":
        groups = [group for group in facts.held.get(row.queue, ()) if held.is_long(row.queue, group)]
        return replace(row, state=RowStatus("Limited", "warn", held.limited_text(groups[0]))) if groups else row
    if row.state.word != "Late" or (row.ratio or 0) <= 1:
        return row
    if lateness.blocking_actor(row, facts):
        return replace(row, state=replace(row.state, word=lateness.BLOCKED))
    found = flood_of(row)
    return row if found is None else replace(row, state=RowStatus(lateness.FLOODED, row.state.level, found.text))


def most_held(row: Row, facts: YardFacts | None) -> tuple[str, int]:
    """Return the actor that holds most slots of a late queue, and how many; ("", 0) where it is less than half."""
    if facts is None or row.kind != "queue" or row.state.word not in lateness.LATE_WORDS:
        return "", 0
    names = {pool.name for pool in declared_yard().pools_of(row.queue)}
    counted = Counter(job.actor for job in facts.running or () if job.holder.pool in names)
    actor, count = next(iter(counted.most_common(1)), ("", 0))
    return (actor, count) if count * 2 >= row.slots else ("", 0)
