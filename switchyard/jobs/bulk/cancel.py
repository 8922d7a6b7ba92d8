"""Cancellation of all jobs that match a filter and have not ended, as a bulk act."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

from switchyard.broker.admin.cancel_many import STOPS, Found, cancel_many, count, look
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_record import cancelled_job
from switchyard.broker.stores.job_steps import ended_step
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken, most_common
from switchyard.bulk.models import BulkAct
from switchyard.jobs.bulk.live_filter import COUNTED_PAGES, PAGE, LiveKind, Matcher, families_of, live_filter
from switchyard.jobs.running import families

# Pages of 500 messages that one step looks through.
PAGES: Final = 10
# A walk is repeated while it finds something: a message may have gone back to where it was before.
MOST_WALKS: Final = 5
REASONS: Final = {"before": "cancelled before", "unknown": "ended before"}
NEVER: Final = "run_bulk_act"


class BulkCancel(LiveKind):
    """Cancel jobs: what waits or is scheduled never starts, what runs is asked to stop."""

    act, right = "job.cancel", "switchyard_jobs.cancel_job"
    texts = KindTexts(
        "Cancel", "job", "jobs", left="as they are", destructive=True,
        effect="What waits or is scheduled never starts; what runs is asked to stop, and is over within 10 seconds.",
        undo="None: run the jobs again once their records are in the history.",
    )  # fmt: skip
    stops, look = STOPS, staticmethod(look)

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the actors and the states, as far as messages are looked through."""
        if _too_many(act):
            return [("Counted", "all jobs that wait or run there, more than 10,000; those that match are hit")]
        found = self.matching(act)
        states = Counter(one.state for one in found).most_common()
        return [
            ("Actors", most_common(one.message.actor_name for one in found)),
            ("States", ", ".join(f"{jobs:,} {state}" for state, jobs in states) or "–"),
        ]

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        wanted = live_filter(filter)
        names = [family.keys.queue for family in families()]
        if not names:
            raise ValueError("this broker's queues cannot be searched; cancel jobs one by one")
        if wanted.queue and wanted.queue not in names:
            raise ValueError(f"queue: {wanted.queue!r} is no queue; there are {', '.join(names)}")
        return dict(wanted.to_query())

    def hits(self, found: Found) -> bool:
        """Return whether a job is not that of a bulk act."""
        return found.message.actor_name != NEVER

    def count(self, act: BulkAct) -> int:
        """Return how many jobs match; of more than 10,000 messages how many there are, whether they match or not."""
        return _too_many(act) or super().count(act)

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Walk on until some match, or 5,000 messages were looked through."""
        asked, matcher = families_of(act), Matcher(act)
        place = {"queue": 0, "stop": 0, "after": None, "walk": 1, "hit": False, **act.cursor}
        place.pop("end", None)
        for _ in range(PAGES):
            family = asked[place["queue"]]
            page = look(family, STOPS[place["stop"]], place["after"], limit)
            hit = [found.id for found in page.found if self.hits(found) and matcher.matches(found)]
            place["hit"] = place["hit"] or bool(hit)
            more = _advance(place, page.after, len(asked))
            if hit or not more:
                return Taken([[id_, family.keys.queue] for id_ in hit], place, more=more)
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
            [family] = families([queue])
            answers |= cancel_many(family, rows, nonce=act.nonce, history_bytes=records.history_share)
            records.write_cancelled([end for end in ends if answers[end.job_id] == "cancelled"])
        return [REASONS.get(answers[job_id], "") for job_id, _ in items]


CANCEL: Final[Kind] = BulkCancel()


def _too_many(act: BulkAct) -> int:
    """Return how many messages an act would look through; 0 for those that can be counted one by one."""
    depth = sum(count(family) for family in families_of(act))
    return depth if depth > COUNTED_PAGES * PAGE else 0


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
