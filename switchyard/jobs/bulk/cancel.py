"""Cancellation of all jobs that match a filter and have not ended, as a bulk act."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

import dramatiq

from switchyard.broker.admin.cancel_many import STOPS, Found, cancel_many, count, look
from switchyard.broker.clock import EPOCH
from switchyard.broker.interface import facilities
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.job_record import cancelled_job
from switchyard.broker.stores.job_steps import ended_step
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken
from switchyard.bulk.models import BulkAct
from switchyard.conf import declared_yard
from switchyard.console.links import jobs_url
from switchyard.history.filters import Filter
from switchyard.jobs.bulk.live_filter import Matcher, live_filter

# Pages of 500 messages that one step looks through, and that the count at the start looks through.
PAGES: Final = 10
COUNTED_PAGES: Final = 20
# A walk is repeated while it finds something: a message may have gone back to where it was before.
MOST_WALKS: Final = 5
REASONS: Final = {"before": "cancelled before", "unknown": "ended before"}
NEVER: Final = "run_bulk_act"


class BulkCancel:
    """Cancel jobs: what waits or is scheduled never starts, what runs is asked to stop."""

    act, right = "job.cancel", "switchyard_jobs.cancel_job"
    texts = KindTexts(
        "Cancel", "job", "jobs", left="as they are", destructive=True,
        effect="What waits or is scheduled never starts; what runs is asked to stop, and is over within 10 seconds.",
        undo="None: run the jobs again once their records are in the history.",
    )  # fmt: skip

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the actors, as far as messages are looked through."""
        wanted = Filter.from_query(act.filter)
        names = _queues(wanted)
        if sum(count(_family(name)) for name in names) > COUNTED_PAGES * 500:
            return [("Counted", "all jobs that wait or run there, more than 10,000; those that match are hit")]
        found = {one.id: one for name in names for one in _matching(_family(name), act)}.values()
        actors = Counter(one.message.actor_name for one in found).most_common(4)
        states = Counter(one.state for one in found).most_common()
        shown = ", ".join(f"{name} ({jobs:,})" for name, jobs in actors[:3])
        return [
            ("Actors", shown + (" and others" if len(actors) > 3 else "") or "–"),
            ("States", ", ".join(f"{jobs:,} {state}" for state, jobs in states) or "–"),
        ]

    def address(self, filter: dict[str, Any]) -> str:
        """Return the list of these jobs."""
        return jobs_url(**filter)

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter in its stored form."""
        wanted = live_filter(filter)
        if not isinstance(dramatiq.get_broker(), RedisBroker):
            raise ValueError(  # noqa: TRY004  a matter of the project's broker
                "this broker's queues cannot be searched; cancel jobs one by one"
            )
        if wanted.queue and wanted.queue not in _queues(Filter()):
            raise ValueError(f"queue: {wanted.queue!r} is no queue; there are {', '.join(_queues(Filter()))}")
        return dict(wanted.to_query())

    def count(self, act: BulkAct) -> int:
        """Return how many jobs match; of more than 10,000 messages how many there are, whether they match or not."""
        wanted = Filter.from_query(act.filter)
        families = [_family(name) for name in _queues(wanted)]
        depth = sum(count(family) for family in families)
        if depth > COUNTED_PAGES * 500:
            return depth
        return len({found.id for family in families for found in _matching(family, act)})

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Walk on until some match, or 5,000 messages were looked through."""
        names = _queues(Filter.from_query(act.filter))
        place = {"queue": 0, "stop": 0, "after": None, "walk": 1, "hit": False, **act.cursor}
        place.pop("end", None)
        matcher = _Matcher(act)
        for _ in range(PAGES):
            family = _family(names[place["queue"]])
            page = look(family, STOPS[place["stop"]], place["after"], limit)
            items = [[found.id, names[place["queue"]]] for found in page.found if matcher.hits(found)]
            place["hit"] = place["hit"] or bool(items)
            more = _advance(place, page.after, len(names))
            if items or not more:
                return Taken(items, place, more=more)
        return Taken([], place, more=True)

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Cancel the messages together with their rows for the history, then record the cancellations."""
        by_queue: dict[str, list[str]] = defaultdict(list)
        for job_id, queue in items:
            by_queue[queue].append(job_id)
        answers: dict[str, str] = {}
        records = facilities().records
        for queue, ids in by_queue.items():
            # Read before: a scheduled message is taken out at once, and says what its record says.
            found = records.read_many(ids, queues=(queue,))
            known = [record for record in found if record is not None and not record.end_recorded]
            ends = [ended_step(record.queue, cancelled_job(record)) for record in known]
            rows = dict.fromkeys(ids, b"") | {end.job_id: end.record for end in ends}
            answers |= cancel_many(_family(queue), rows, nonce=act.nonce, history_bytes=records.history_share)
            records.write_cancelled([end for end in ends if answers[end.job_id] == "cancelled"])
        return [REASONS.get(answers[job_id], "") for job_id, _ in items]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Do nothing: the job records hold the result."""


CANCEL: Final[Kind] = BulkCancel()


class _Matcher(Matcher):
    def __init__(self, act: BulkAct) -> None:
        super().__init__(Filter.from_query(act.filter))
        self._began = int((act.created_at - EPOCH).total_seconds() * 1000)

    def hits(self, found: Found) -> bool:
        """Return whether a job matches and was enqueued before the act began."""
        message = found.message
        sent = int(message.options.get("enqueued_at", message.message_timestamp))
        return message.actor_name != NEVER and sent <= self._began and self.matches(message, found.state)


def _advance(place: dict[str, Any], after: list[Any] | None, queues: int) -> bool:
    """Move a place to the next page; return ``False`` at the end of the last walk."""
    place["after"] = after
    if after is None:
        place["stop"] += 1
    if place["stop"] == len(STOPS):
        place["stop"], place["queue"] = 0, place["queue"] + 1
    if place["queue"] < queues:
        return True
    if not place["hit"] or place["walk"] == MOST_WALKS:
        return False
    place["queue"], place["walk"], place["hit"] = 0, place["walk"] + 1, False
    return True


def _matching(family: QueueOperations, act: BulkAct) -> Iterator[Found]:
    matcher = _Matcher(act)
    for stop in STOPS:
        after: list[Any] | None = None
        while True:
            page = look(family, stop, after, 500)
            yield from (found for found in page.found if matcher.hits(found))
            if (after := page.after) is None:
                break


def _queues(wanted: Filter) -> list[str]:
    return [queue.name for queue in declared_yard().queues if wanted.queue in ("", queue.name)]


def _family(queue: str) -> QueueOperations:
    broker = dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)  # noqa: S101  checked before the act was stored
    return broker.lane(queue)[0]
