"""Facts of the yard at one moment, from which queues and pools are judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import dramatiq

from switchyard.broker.admin.browse import BrowsedMessage, look
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError
from switchyard.broker.queue.operations import QueueOperations
from switchyard.conf import declared_yard
from switchyard.jobs.running import RunningJob, families, running_or_none
from switchyard.operations.findings.snapshot import Snapshot
from switchyard.operations.queries import YardState, pool_state
from switchyard.operations.rows import Row, yard_rows
from switchyard.operations.server_state import ServerState

# A page that is read every few seconds decodes so many bodies at most.
LOOKED_THROUGH: Final = 200
AS_SENT: Final = "delay"
# Waiting messages of a late queue whose owners are counted: half from its head, half from its end.
SAMPLE: Final = 200
# Share of one owner from which a queue is flooded.
MOST: Final = 0.8


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """Held messages of one actor that are held for one reason, among the next to be due.

    Args:
        reason: As in the option ``deferred_by``, with the actor's limit where it has one; ``delay`` as it was sent.
        due: Of the first; ``last`` of the last.
        by_limit: A limit holds them back, not their sender.
        more: There are more than were looked through.
    """

    actor: str
    reason: str
    count: int
    due: datetime
    last: datetime
    by_limit: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class YardFacts:
    """Facts of the yard.

    Args:
        rows: As the overview shows them.
        running: The longest first; ``None`` when it is not known.
        held: Queue -> messages that it holds for later, by actor and reason.
    """

    state: YardState
    rows: tuple[Row, ...]
    running: list[RunningJob] | None = None
    held: Mapping[str, tuple[HeldGroup, ...]] = field(default_factory=dict)

    @property
    def queue_rows(self) -> tuple[Row, ...]:
        """The rows of queues, without those of retry lanes and shared pools."""
        return tuple(row for row in self.rows if row.kind == "queue")


def facts_of(state: YardState) -> YardFacts:
    """Return the facts of a state, with what runs and what is held for later."""
    return YardFacts(state, tuple(yard_rows(declared_yard(), state)), running_or_none(), _held(state))


def facts_of_snapshot(snapshot: Snapshot) -> YardFacts:
    """Return the facts that the doctor judges."""
    yard = declared_yard()
    pools = {
        pool.name: pool_state(pool, snapshot.reports, snapshot.silent, snapshot.instructions) for pool in yard.pools
    }
    stats = tuple(snapshot.queues[queue.name].stats for queue in yard.queues if queue.name in snapshot.queues)
    hosts = frozenset(report.host for report in snapshot.reports)
    server = ServerState(away=snapshot.away, pools_known=snapshot.pools_known)
    return facts_of(YardState(stats, pools, scheduler_up=True, server=server, hosts=hosts))


def _held(state: YardState) -> dict[str, tuple[HeldGroup, ...]]:
    holding = [stats.queue for stats in state.queues if stats.live.scheduled]
    try:
        return {family.keys.queue: held_groups(family) for family in families(holding)} if holding else {}
    except BrokerError:
        return {}


def held_groups(family: QueueOperations) -> tuple[HeldGroup, ...]:
    """Return who waits in a queue for its time, most first. Retries are not among them.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    page = look(family, "live", "scheduled", limit=LOOKED_THROUGH)
    cut = page.cursor is not None
    seen = [*page.items, *(_last(family) if cut else ())]
    groups: dict[tuple[str, str], list[datetime]] = {}
    for one in seen:
        if one.message is not None and one.due_at is not None:
            key = one.message.actor_name, str(one.message.options.get("deferred_by") or AS_SENT)
            groups.setdefault(key, []).append(datetime_of(one.due_at))
    counts = Counter({key: len(dues) for key, dues in groups.items()})
    return tuple(
        HeldGroup(
            actor,
            _words(reason, actor),
            count,
            due=min(groups[actor, reason]),
            last=max(groups[actor, reason]),
            by_limit=reason.endswith("_limit"),
            more=cut,
        )
        for (actor, reason), count in counts.most_common()
    )


def _last(family: QueueOperations) -> list[BrowsedMessage]:
    count = int(family.calls.command("ZCARD", family.keys.due("live")))
    return list(look(family, "live", "scheduled", cursor=max(count - 1, LOOKED_THROUGH), limit=1).items)


def _words(reason: str, actor: str) -> str:
    declared = dramatiq.get_broker().actors.get(actor)
    limit = declared.options.get(reason) if declared is not None else None
    return f"{reason.replace('_', ' ')}, {limit}" if isinstance(limit, str) else reason.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Flood:
    """Owner of most of what waits in a queue, and the share among the messages that were looked at."""

    owner: str
    share: float

    @property
    def text(self) -> str:
        """The share as pages say it: ``about 96 % of acme``."""
        return f"about {self.percent} of {self.owner}"

    @property
    def percent(self) -> str:
        """The share in per cent: ``96 %``."""
        return f"{self.share * 100:.0f} %"


def flood_of(row: Row) -> Flood | None:
    """Return who floods a late queue; ``None`` where few wait, nobody's are most, or nobody else waits."""
    waiting = row.waiting or 0
    # Where slots are free, something else keeps jobs from starting.
    if waiting < SAMPLE or row.busy * 2 < row.slots:
        return None
    half = SAMPLE // 2
    try:
        [family] = families([row.queue])
        pages = [look(family, "live", "waiting", cursor=at, limit=half) for at in (0, waiting - half)]
    except (ValueError, BrokerError):
        return None
    seen = [one.message for page in pages for one in page.items if one.message is not None]
    owners = Counter(str(message.options.get("owner") or "") for message in seen)
    [(owner, count)] = owners.most_common(1) or [("", 0)]
    if not owner or len(owners) < 2 or count < MOST * len(seen):
        return None
    return Flood(owner, count / len(seen))
