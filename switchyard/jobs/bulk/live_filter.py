"""Shared parts of bulk acts on jobs that have not ended: their filter, and the walk over the jobs that match it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from switchyard.broker.admin.cancel_many import Found, Stop, WalkPage
from switchyard.broker.clock import EPOCH
from switchyard.broker.queue.operations import QueueOperations
from switchyard.bulk.kinds import Kind, most_common
from switchyard.bulk.models import BulkAct
from switchyard.console.links import jobs_url
from switchyard.history.filters import Filter
from switchyard.jobs.listing.unfinished import Comparison
from switchyard.jobs.running import families

LIVE_STATES: Final = ("queued", "scheduled", "running", "retrying")
# Known of ended attempts only.
ENDED_ONLY: Final = ("error", "fingerprint", "release", "failures")
# Pages of 500 messages that the count at the start looks through in each list.
COUNTED_PAGES: Final = 20
PAGE: Final = 500


def live_filter(query: dict[str, Any]) -> Filter:
    """Return a filter of jobs that have not ended; ``since`` and ``until`` are of their enqueueing.

    Raises:
        ValueError: a field is not known, has no valid value, or is known of ended jobs only.
    """
    wanted = Filter.from_query(query).fixed()
    for name in ENDED_ONLY:
        if getattr(wanted, name):
            raise ValueError(f"{name}: is known of ended jobs only; leave it out, or name jobs that wait or run")
    if wanted.states and not set(wanted.states) & set(LIVE_STATES):
        raise ValueError(f"state: {','.join(wanted.states)} have ended; there are {', '.join(LIVE_STATES)}")
    return wanted


def began_ms(act: BulkAct) -> int:
    """Return when an act began, in ms since the epoch."""
    return int((act.created_at - EPOCH).total_seconds() * 1000)


def families_of(act: BulkAct) -> list[QueueOperations]:
    """Return the families of the queues that an act's filter names, by default of all."""
    queue = act.filter.get("queue", "")
    return families([queue] if queue else None)


class Matcher:
    """Comparison of messages with the filter of an act."""

    def __init__(self, act: BulkAct) -> None:
        wanted = Filter.from_query(act.filter)
        self._states, self._comparison, self._began = wanted.states, Comparison(wanted), began_ms(act)

    def matches(self, found: Found) -> bool:
        """Return whether a job matches, and was enqueued before the act began. Its queue is not compared."""
        at = self._comparison.time_of(found.body)
        return at is not None and at <= self._began and (not self._states or found.state in self._states)


class LiveKind(Kind):
    """Bulk act on jobs that wait, are scheduled or run.

    Attributes:
        stops: Lists of a family that are walked through.
        look: Reads a page of such a list.
    """

    stops: Sequence[Stop]
    look: Callable[[QueueOperations, Stop, Sequence[Any] | None, int], WalkPage]

    def hits(self, found: Found) -> bool:
        """Return whether the act applies to a job that matches."""
        return True

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the actors of those that match."""
        return [("Actors", most_common(found.message.actor_name for found in self.matching(act)))]

    def address(self, filter: dict[str, Any]) -> str:
        return jobs_url(**filter)

    def count(self, act: BulkAct) -> int:
        """Return how many jobs match among the first 10,000 of each list."""
        return len(self.matching(act))

    def matching(self, act: BulkAct) -> list[Found]:
        """Return the jobs that match among the first 10,000 of each list, each once."""
        return list({found.id: found for found in self._walk(act)}.values())

    def _walk(self, act: BulkAct) -> Iterator[Found]:
        matcher = Matcher(act)
        for family in families_of(act):
            for stop in self.stops:
                after: list[Any] | None = None
                for _ in range(COUNTED_PAGES):
                    page = self.look(family, stop, after, PAGE)
                    yield from (found for found in page.found if self.hits(found) and matcher.matches(found))
                    if (after := page.after) is None:
                        break
