"""State words of queues that need more than the broker's counts: Blocked, Flooded and Limited."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from apps.platform.conf import declared_yard
from apps.platform.jobs.running import families
from apps.platform.operations.findings import held, lateness
from apps.platform.operations.findings.facts import YardFacts
from apps.platform.operations.rows import Row, RowStatus
from broker.admin.browse import look
from broker.errors import BrokerError

# Waiting messages of a late queue whose owners are counted: half from its head, half from its end.
SAMPLE = 200
# Share of one owner from which a queue is flooded, while others wait as well.
MOST = 0.8


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
        return replace(row, state=replace(row.state, word="Blocked"))
    flood = _flood(row)
    return replace(row, state=RowStatus("Flooded", row.state.level, flood)) if flood else row


def most_held(row: Row, facts: YardFacts | None) -> tuple[str, int]:
    """Return the actor that holds most slots of a late queue, and how many; ("", 0) where it is less than half."""
    if facts is None or row.kind != "queue" or row.state.word not in ("Late", "Blocked", "Flooded"):
        return "", 0
    names = {pool.name for pool in declared_yard().pools_of(row.queue)}
    counted = Counter(job.actor for job in facts.running or () if job.holder.pool in names)
    actor, count = next(iter(counted.most_common(1)), ("", 0))
    return (actor, count) if count * 2 >= row.slots else ("", 0)


def _flood(row: Row) -> str:
    """Return whose jobs are most of what waits, as a fact; "" where nobody's are, or nobody else waits."""
    waiting = row.waiting or 0
    if waiting < SAMPLE:
        return ""
    half = SAMPLE // 2
    try:
        [family] = families([row.queue])
        pages = [look(family, "live", "waiting", cursor=at, limit=half) for at in (0, waiting - half)]
    except (ValueError, BrokerError):
        return ""
    seen = [one.message for page in pages for one in page.items if one.message is not None]
    owners = Counter(str(message.options.get("owner") or "") for message in seen)
    [(owner, count)] = owners.most_common(1) or [("", 0)]
    if not owner or len(owners) < 2 or count < MOST * len(seen):
        return ""
    return f"about {count / len(seen):.0%} of {owner}".replace("%", " %", 1)
