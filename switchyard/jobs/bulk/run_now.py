"""Start of all scheduled jobs that match a filter before their time, as a bulk act."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import dramatiq

from switchyard.broker.admin.cancel_many import Found
from switchyard.broker.admin.run_now import SCHEDULES, look_later
from switchyard.broker.clock import EPOCH
from switchyard.broker.interface import facilities
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis_broker import RedisBroker
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken
from switchyard.bulk.models import BulkAct
from switchyard.conf import declared_yard
from switchyard.console.links import jobs_url
from switchyard.history.filters import Filter
from switchyard.jobs.bulk.live_filter import Matcher, live_filter

STATES: Final = ("scheduled", "retrying")
# Pages of 500 messages that the count at the start looks through in each schedule.
COUNTED_PAGES: Final = 20
REASONS: Final = {"waiting": "waits or runs already", "unknown": "ended before"}


class BulkRunNow:
    """Make jobs due at once that are scheduled, or wait for their retry; those that a rate limit holds are left."""

    act, right = "job.run_now", "switchyard_jobs.run_job"
    texts = KindTexts(
        "Run now", "job", "jobs", left="scheduled",
        effect="Each starts as soon as a slot is free, instead of at its time.",
        undo="Cancel the jobs while they wait.",
    )  # fmt: skip

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter in its stored form."""
        wanted = live_filter(filter)
        if wanted.states and not set(wanted.states) & set(STATES):
            raise ValueError(
                f"state: {','.join(wanted.states)} have no time to wait for; there are {', '.join(STATES)}"
            )
        if not isinstance(dramatiq.get_broker(), RedisBroker):
            raise ValueError("this broker's queues cannot be searched, nor can a delayed job be run now")  # noqa: TRY004
        return dict(wanted.to_query())

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the actors of those that match."""
        actors = Counter(found.message.actor_name for found in _matching(act)).most_common(4)
        shown = ", ".join(f"{name} ({jobs:,})" for name, jobs in actors[:3])
        return [("Actors", shown + (" and others" if len(actors) > 3 else "") or "–")]

    def address(self, filter: dict[str, Any]) -> str:
        """Return the list of these jobs."""
        return jobs_url(**filter)

    def count(self, act: BulkAct) -> int:
        """Return how many jobs match among the first 10,000 of each schedule."""
        return sum(1 for _ in _matching(act))

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Return those that match on the next page of a schedule."""
        families, place = _families(act), {"queue": 0, "stop": 0, "after": None, **act.cursor}
        if not families:
            return Taken([], place, more=False)
        family, stop = families[place["queue"]], SCHEDULES[place["stop"]]
        page = look_later(family, stop, place["after"], limit)
        items = [[found.id, family.keys.queue] for found in page.found if _hits(act, found)]
        place["after"] = page.after
        if page.after is None:
            place["stop"] = (place["stop"] + 1) % len(SCHEDULES)
            place["queue"] += place["stop"] == 0
        return Taken(items, place, more=place["queue"] < len(families))

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Make the jobs due."""
        transport = facilities().transport
        return [REASONS.get(transport.due_now(queue, job_id), "") for job_id, queue in items]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Do nothing: the jobs that start are the result."""


RUN_NOW: Final[Kind] = BulkRunNow()


def _hits(act: BulkAct, found: Found) -> bool:
    """Return whether a job matches, was enqueued before the act began, and is held by nothing but its time."""
    options = found.message.options
    if options.get("deferred_by") == "rate_limit" or "parked_ms" in options:
        return False
    sent = int(options.get("enqueued_at", found.message.message_timestamp))
    began = int((act.created_at - EPOCH).total_seconds() * 1000)
    return sent <= began and Matcher(Filter.from_query(act.filter)).matches(found.message, found.state)


def _matching(act: BulkAct) -> Iterator[Found]:
    for family in _families(act):
        for stop in SCHEDULES:
            after: list[Any] | None = None
            for _ in range(COUNTED_PAGES):
                page = look_later(family, stop, after, 500)
                yield from (found for found in page.found if _hits(act, found))
                if (after := page.after) is None:
                    break


def _families(act: BulkAct) -> list[QueueOperations]:
    wanted, broker = Filter.from_query(act.filter), dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)  # noqa: S101  checked before the act was stored
    return [broker.lane(queue.name)[0] for queue in declared_yard().queues if wanted.queue in ("", queue.name)]
