"""Start of all scheduled jobs that match a filter before their time, as a bulk act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from switchyard.broker.admin.cancel_many import Found
from switchyard.broker.admin.run_now import SCHEDULES, look_later
from switchyard.broker.interface import facilities
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken
from switchyard.bulk.models import BulkAct
from switchyard.jobs.bulk.live_filter import LiveKind, Matcher, families_of, live_filter
from switchyard.jobs.running import families

STATES: Final = ("scheduled", "retrying")
REASONS: Final = {"waiting": "waits or runs already", "unknown": "ended before"}


class BulkRunNow(LiveKind):
    """Make jobs due at once that are scheduled, or wait for their retry; those that a rate limit holds are left."""

    act, right = "job.run_now", "switchyard_jobs.run_job"
    texts = KindTexts(
        "Run now", "job", "jobs", left="scheduled",
        effect="Each starts as soon as a slot is free, instead of at its time.",
        undo="Cancel the jobs while they wait.",
    )  # fmt: skip
    stops, look = SCHEDULES, staticmethod(look_later)

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        wanted = live_filter(filter)
        if wanted.states and not set(wanted.states) & set(STATES):
            raise ValueError(
                f"state: {','.join(wanted.states)} have no time to wait for; there are {', '.join(STATES)}"
            )
        if not families():
            raise ValueError("this broker's queues cannot be searched, nor can a delayed job be run now")
        return dict(wanted.to_query())

    def hits(self, found: Found) -> bool:
        """Return whether a job is held by nothing but its time."""
        options = found.message.options
        return options.get("deferred_by") != "rate_limit" and "parked_ms" not in options

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Return those that match on the next page of a schedule."""
        asked, place, matcher = families_of(act), {"queue": 0, "stop": 0, "after": None, **act.cursor}, Matcher(act)
        if not asked:
            return Taken([], place, more=False)
        family = asked[place["queue"]]
        page = look_later(family, SCHEDULES[place["stop"]], place["after"], limit)
        hit = [found.id for found in page.found if self.hits(found) and matcher.matches(found)]
        place["after"] = page.after
        if page.after is None:
            place["stop"] = (place["stop"] + 1) % len(SCHEDULES)
            place["queue"] += place["stop"] == 0
        return Taken([[id_, family.keys.queue] for id_ in hit], place, more=place["queue"] < len(asked))

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Make the jobs due."""
        transport = facilities().transport
        return [REASONS.get(transport.due_now(queue, job_id), "") for job_id, queue in items]


RUN_NOW: Final[Kind] = BulkRunNow()
