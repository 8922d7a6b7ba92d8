"""A second run of all jobs of the history that match a filter, as a bulk act."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from dramatiq.middleware import MiddlewareError

from switchyard.broker.errors import ActRefused, BrokerError, QueueFull, SwitchyardError
from switchyard.broker.stores.job_records import ENDED
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken, most_common
from switchyard.bulk.models import BulkAct
from switchyard.console.links import jobs_url
from switchyard.history.cursors import Cursor
from switchyard.history.filters import Filter
from switchyard.history.queries import search
from switchyard.jobs.bulk.live_filter import began_ms
from switchyard.jobs.passport.again import again_message, enqueue_again
from switchyard.jobs.passport.reading import passport_of

# A job takes several reads: a step of fewer lets Stop and progress follow.
MOST: Final = 100
COUNTED: Final = 1_000
# Names the second run of a job by its act, so that a repeated step enqueues it once.
RUNS: Final = uuid.UUID("0f2b7c7e-5b1d-4f0e-9a55-6f1b8f0c2d11")
NOT_KEPT: Final = "its arguments are not kept whole, or its actor is unknown"
REFUSED: Final = "its arguments or tags do not fit this release"


class BulkRunAgain(Kind):
    """Enqueue ended jobs again, newest first, each as a new job of the same owner and tags."""

    act, right = "job.run_again", "switchyard_jobs.run_job"
    texts = KindTexts(
        "Run again", "job", "jobs", left="as they are", destructive=True,
        effect="Each runs once more as a new job. What the first run did may be done twice.",
        undo="Cancel the new jobs while they wait.",
    )  # fmt: skip

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter in its stored form: of ended jobs, with fixed times."""
        wanted = Filter.from_query(filter).fixed()
        if not wanted:
            raise ValueError("state: name a condition; a second run of every job of the history is refused")
        if wanted.states and not set(wanted.states) <= ENDED:
            raise ValueError(f"state: {','.join(wanted.states)}: only jobs that have ended can run again")
        return dict(wanted.to_query())

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the actors of the newest ones."""
        shown = most_common((row.actor for row in search(_wanted(act), limit=COUNTED).rows), 4)
        return [("Actors", shown), ("Counted", f"the newest {COUNTED:,} at most; all that match are hit")]

    def address(self, filter: dict[str, Any]) -> str:
        return jobs_url(**filter)

    def count(self, act: BulkAct) -> int:
        """Return how many jobs match, at most 1,000: more are reached nevertheless."""
        return len(search(_wanted(act), limit=COUNTED).rows)

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Return the next page of the history."""
        after = act.cursor.get("after")
        page = search(_wanted(act), after=Cursor.parse(after) if after else None, limit=min(limit, MOST))
        items = [[row.job_id] for row in page.rows if row.state in ENDED]
        return Taken(items, {"after": str(page.after or "")}, more=page.after is not None)

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Enqueue the jobs; one whose second run is known is not enqueued again."""
        return [_run(act, item[0]) for item in items]


RUN_AGAIN: Final[Kind] = BulkRunAgain()


def _run(act: BulkAct, job_id: str) -> str:
    job = passport_of(job_id)
    if job is None:
        return "no longer in the history"
    second = str(uuid.uuid5(RUNS, f"{act.nonce} {job_id}"))
    try:
        enqueue_again(again_message(job, job_id=second), once=True)
    except (BrokerError, QueueFull):
        raise
    except ActRefused:
        return NOT_KEPT
    except (SwitchyardError, MiddlewareError):  # the others can run all the same
        return REFUSED
    return ""


def _wanted(act: BulkAct) -> Filter:
    """Return the filter, without what ended after the act began."""
    wanted = Filter.from_query(act.filter)
    if wanted.until_ms is not None and wanted.until_ms <= began_ms(act):
        return wanted
    return replace(wanted, until=act.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
