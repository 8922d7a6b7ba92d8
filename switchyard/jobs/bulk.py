"""Bulk acts on jobs, all that match a filter or those that are ticked: cancel unfinished ones, run ended ones again."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from dramatiq.middleware import MiddlewareError

from switchyard.broker.admin.browse import SeenMessage
from switchyard.broker.admin.scheduled import STOPS, Stop, count, look, state_of
from switchyard.broker.clock import EPOCH
from switchyard.broker.errors import ActRefused, BrokerError, QueueFull, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.history_streams import ended_step
from switchyard.broker.stores.job_record import cancelled_job
from switchyard.broker.stores.job_records import ENDED, Job
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken, most_common
from switchyard.bulk.models import BulkAct
from switchyard.console.formatting import iso
from switchyard.console.links import jobs_url
from switchyard.history.filters import Filter
from switchyard.history.queries import Cursor, find_many, search
from switchyard.jobs.listing.pages import comparison_of
from switchyard.jobs.passport.again import again_message, enqueue_again
from switchyard.jobs.presentation import passport_of
from switchyard.jobs.queries import families, is_message_id, queues_of, records_of
from switchyard.jobs.services import request_cancel

LIVE_STATES: Final = ("queued", "scheduled", "running", "retrying")
# Known of ended attempts only.
ENDED_ONLY: Final = ("error", "fingerprint", "release", "waited", "ran", "failures")
# Pages of 500 messages that the count at the start looks through in each list.
COUNTED_PAGES: Final = 20
PAGE: Final = 500
# Pages that one step looks through.
PAGES: Final = 10
# How often at most the lists are walked through, while a walk finds something: a message may have gone back meanwhile.
WALKS: Final = 5


def began_ms(act: BulkAct) -> int:
    """Return when an act began, in ms since the epoch."""
    return int((act.created_at - EPOCH).total_seconds() * 1000)


def families_of(act: BulkAct) -> list[QueueOperations]:
    """Return the families of the queues that an act's filter names, by default of all."""
    queue = act.filter.get("queue", "")
    return families([queue] if queue else None)


def _lists(act: BulkAct) -> list[tuple[QueueOperations, Stop]]:
    """Return the lists of messages that a walk reads one after the other."""
    return [(family, stop) for family in families_of(act) for stop in STOPS]


def matcher(act: BulkAct) -> Callable[[SeenMessage], bool]:
    """Return whether a job matches the filter of an act, and was enqueued before it began. Queues are not compared."""
    wanted, began = Filter.from_query(act.filter), began_ms(act)
    time_of = comparison_of(wanted)

    def matches(found: SeenMessage) -> bool:
        at = time_of(found.body)
        return at is not None and at <= began and (not wanted.states or state_of(found) in wanted.states)

    return matches


# A job takes several reads: a step of fewer lets Stop and progress follow.
MOST: Final = 100
COUNTED: Final = 1_000
# Names the second run of a job by its act, so that a repeated step enqueues it once.
RUNS: Final = uuid.UUID("0f2b7c7e-5b1d-4f0e-9a55-6f1b8f0c2d11")


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
    known = passport_of(job_id)
    if known is None:
        return "no longer in the history"
    if not known.job.ended:
        return "has not ended"
    second = str(uuid.uuid5(RUNS, f"{act.nonce} {job_id}"))
    try:
        enqueue_again(again_message(known, job_id=second), once=True)
    except (BrokerError, QueueFull):
        raise
    except ActRefused:
        return "its arguments are not kept whole, or its actor is unknown"
    except (SwitchyardError, MiddlewareError):  # the others can run all the same
        return "its arguments or tags do not fit this release"
    return ""


def _wanted(act: BulkAct) -> Filter:
    """Return the filter, without what ended after the act began."""
    wanted = Filter.from_query(act.filter)
    if wanted.until_ms is not None and wanted.until_ms <= began_ms(act):
        return wanted
    return replace(wanted, until=iso(act.created_at, "milliseconds"))


NOT_CANCELLED: Final = {
    "was cancelled": "cancelled before", "was asked": "cancelled before", "unknown": "ended before",
}  # fmt: skip


class BulkCancel(Kind):
    """Cancel jobs: what waits or is scheduled never starts, what runs is asked to stop."""

    act, right = "job.cancel", "switchyard_jobs.cancel_job"
    texts = KindTexts(
        "Cancel", "job", "jobs", left="as they are", destructive=True,
        effect="What waits or is scheduled never starts; what runs is asked to stop, and is over within 10 seconds.",
        undo="None: run the jobs again once their records are in the history.",
    )  # fmt: skip

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the actors and the states, as far as messages are looked through."""
        if _too_many(act):
            return [("Counted", "all jobs that wait or run there, more than 10,000; those that match are hit")]
        found = self.matching(act)
        states = Counter(map(state_of, found)).most_common()
        return [
            ("Actors", most_common(one.message.actor_name for one in found if one.message is not None)),
            ("States", ", ".join(f"{jobs:,} {state}" for state, jobs in states) or "–"),
        ]

    def address(self, filter: dict[str, Any]) -> str:
        return jobs_url(**filter)

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter in its stored form: of jobs that have not ended.

        ``since`` and ``until`` are of their enqueueing.

        Raises:
            ValueError: a field is not known, has no valid value, or is known of ended jobs only; or there is no field.
        """
        wanted = Filter.from_query(filter).fixed()
        if not wanted:
            raise ValueError("state: name a condition; the end of every job that waits or runs is refused")
        for name in ENDED_ONLY:
            if getattr(wanted, name):
                raise ValueError(f"{name}: is known of ended jobs only; leave it out, or name jobs that wait or run")
        if wanted.states and not set(wanted.states) & set(LIVE_STATES):
            raise ValueError(f"state: {','.join(wanted.states)} have ended; there are {', '.join(LIVE_STATES)}")
        if not (names := [family.keys.queue for family in families()]):
            raise ValueError("this broker's queues cannot be searched; cancel jobs one by one")
        if wanted.queue and wanted.queue not in names:
            raise ValueError(f"queue: {wanted.queue!r} is not a queue; there are {', '.join(names)}")
        return dict(wanted.to_query())

    def count(self, act: BulkAct) -> int:
        """Return how many jobs match; of more than 10,000 messages how many there are, whether they match or not."""
        return _too_many(act) or len(self.matching(act))

    def matching(self, act: BulkAct) -> list[SeenMessage]:
        """Return the jobs that match among the first 10,000 of each list, each once."""
        matches, found = matcher(act), dict[str, SeenMessage]()
        for family, stop in _lists(act):
            after: list[Any] | None = None
            for _ in range(COUNTED_PAGES):
                page, after = look(family, stop, after, PAGE)
                found |= {each.id: each for each in page if matches(each)}
                if after is None:
                    break
        return list(found.values())

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Walk on until some match, or 5,000 messages were looked through; begin again while a walk finds something."""
        lists, matches = _lists(act), matcher(act)
        # The cursor of a release before names no list: its place is in another, and the walk begins anew.
        known = act.cursor if "list" in act.cursor else {}
        place = {"list": 0, "after": None, "walk": 1, "hit": False, **known}
        for _ in range(PAGES if lists else 0):
            family, stop = lists[place["list"]]
            page, after = look(family, stop, place["after"], limit)
            hit = [found.id for found in page if matches(found)]
            place |= {"after": after, "hit": place["hit"] or bool(hit)}
            if after is None:
                place["list"] += 1
            more = place["list"] < len(lists)
            if not more and place["hit"] and place["walk"] < WALKS:
                place |= {"list": 0, "walk": place["walk"] + 1, "hit": False}
                more = True
            if hit or not more:
                return Taken([[id_, family.keys.queue] for id_ in hit], place, more=more)
        return Taken([], place, more=bool(lists))

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
            limits = 0, 0, records.history_share
            answers |= administration.cancel(family, rows, nonce=act.nonce, limits=limits)
            records.write_cancelled([end for end in ends if answers[end.job_id] == "cancelled"])
        return [NOT_CANCELLED.get(answers[job_id], "") for job_id, _ in items]


CANCEL: Final[Kind] = BulkCancel()


def _too_many(act: BulkAct) -> int:
    """Return how many messages an act would look through; 0 for those that can be counted one by one."""
    depth = sum(count(family) for family in families_of(act))
    return depth if depth > COUNTED_PAGES * PAGE else 0


class OfChosen:
    """Common part of the acts on jobs that are ticked in the list: their ids are the filter, ``job``."""

    hits_ended: bool

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the ids, each once; ``ValueError`` for none."""
        ids = [id_ for id_ in dict.fromkeys(str(filter.get("job", "")).split(",")) if is_message_id(id_)]
        if not ids:
            raise ValueError("job: none was chosen; tick jobs in the list, then press the button above them")
        return {"job": ",".join(ids)}

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        jobs = self._hit(act)
        return [
            ("Actors", most_common(job.actor or "unknown" for job in jobs)),
            ("States", most_common(job.state or "without a record" for job in jobs)),
        ]

    def address(self, filter: dict[str, Any]) -> str:
        return jobs_url()

    def queues(self, act: BulkAct) -> set[str]:
        return queues_of(*_ids(act))

    def count(self, act: BulkAct) -> int:
        """Return for how many there is something to do."""
        return len(self._hit(act))

    def _hit(self, act: BulkAct) -> list[Job]:
        ids = _ids(act)
        known = records_of(ids)
        known |= find_many([id_ for id_ in ids if id_ not in known])
        jobs = [known.get(id_) or Job(id_) for id_ in ids]
        return [job for job in jobs if job.ended == self.hits_ended]

    def take(self, act: BulkAct, limit: int) -> Taken:
        ids, first = _ids(act), act.cursor.get("first", 0)
        after = first + min(limit, MOST)
        return Taken([[id_] for id_ in ids[first:after]], {"first": after}, more=after < len(ids))


def _ids(act: BulkAct) -> list[str]:
    return str(act.filter["job"]).split(",")


class CancelChosen(OfChosen, BulkCancel):
    """Cancel ticked jobs, also those that keep no record."""

    hits_ended = False

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Cancel the jobs, wherever they are."""
        return ["" if request_cancel(item[0]) in ("cancelled", "asked") else "ended before" for item in items]


class RunChosenAgain(OfChosen, BulkRunAgain):
    """Enqueue ticked jobs that have ended again."""

    hits_ended = True


CANCEL_CHOSEN: Final[Kind] = CancelChosen()
RUN_CHOSEN_AGAIN: Final[Kind] = RunChosenAgain()
