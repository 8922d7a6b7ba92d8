"""Reads of jobs: of their records, of the history once they have left the broker, and of those that run now."""

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import dramatiq
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.broker.admin.browse import leased
from switchyard.broker.admin.scheduled import find_unrecorded
from switchyard.broker.errors import BrokerError, UnknownQueue
from switchyard.broker.health.servers import servers_of
from switchyard.broker.interface import facilities
from switchyard.broker.queue import codec
from switchyard.broker.queue.codec import MESSAGE_ID
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.job_record import Job, job_of_message, read_json
from switchyard.broker.stores.job_records import ENDED
from switchyard.broker.stores.pool_reports import PoolReport, SilentChild
from switchyard.conf import declared_yard
from switchyard.history.queries import ended_job, find
from switchyard.outbox.rows import waiting_job

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_job_id(text: str) -> bool:
    """Return whether a text has the form of a job id: a UUID in lower case."""
    return _ID.fullmatch(text) is not None


def is_message_id(text: str) -> bool:
    """Return whether a job may have this id: a UUID, or an id of its sender's own."""
    return MESSAGE_ID.fullmatch(text) is not None


def written_id(text: str) -> str:
    """Return an id that a person wrote: a UUID in lower case, any other text unchanged."""
    return text.lower() if is_job_id(text.lower()) else text


def find_job(job_id: str) -> Job | None:
    """Return a job's record, or ``None`` if the id is unknown, malformed or expired."""
    return facilities().records.read(job_id) if is_message_id(job_id) else None


def with_result(record: Job | None) -> Job | None:
    """Return a record with the result that a store keeps for it; ``ResultStoreUnavailable`` while that is away."""
    if record is None or not record.kept_in:
        return record
    return replace(record, result=read_json(facilities().records.results.load(record.id, record.kept_in)))


def find_known(job_id: str) -> Job | None:
    """Return a job's record, or what the outbox has of it before it is in the broker, or the history after that.

    Raises:
        BrokerUnavailable: the broker did not answer.
        ResultStoreUnavailable: the store that has its result did not answer. Also of a job that the history keeps.
        django.db.DatabaseError: the broker has no record, and the database did not answer.
    """
    found = with_result(find_job(job_id))
    if found is not None or not is_message_id(job_id):
        return found
    if (waiting := job_in_outbox(job_id)) is not None:
        return waiting
    row = find(job_id)
    # One that is to be retried has not ended: the broker would know it.
    return None if row is None or row.state not in ENDED else with_result(ended_job(row))


def job_in_outbox(job_id: str) -> Job | None:
    """Return a job that waits in the outbox, or ``None``."""
    waiting = waiting_job(job_id)
    return None if waiting is None else replace(_by_message(waiting), state="scheduled", reason="outbox")


def _by_message(message: Message[Any]) -> Job:
    return job_of_message(message.message_id, message.queue_name, codec.encode(message, grown=True), due_at=None)


def visible_job(job_id: str, *, owner: str, operator: bool) -> Job | None:
    """Return a job's record if the caller is its owner or an operator, otherwise ``None``."""
    job = find_known(job_id)
    return job if job is not None and (operator or (owner and job.owner == owner)) else None


def own_queues(actor: Actor[..., Any]) -> list[str]:
    """Return the queue to which an actor's jobs are sent, as the list that an act on it takes."""
    return [declared_yard().queue_of(actor.queue_name).name]


def queues_of(*job_ids: str) -> set[str]:
    """Return the queues of jobs, from broker, outbox or history; "" among them for one that is not known."""
    found = [find_job(id_) or job_in_outbox(id_) or find(id_) or find_untracked(id_) for id_ in job_ids]
    names = {"" if one is None else one.queue for one in found}
    return {declared_yard().queue_of(name).name if name in declared_yard().lanes else name for name in names}


def holder_of_key(job_id: str) -> str:
    """Return the id of the job that held the unique key of one that was not enqueued; "" when none is known.

    It is known for an hour. One more read for each queue: ask when there is no such job.
    """
    asked = families() if is_message_id(job_id) else []
    found = asked[0].calls.look([("HGET", family.keys.stand_ins, job_id) for family in asked]) if asked else []
    return next((str(holder, "ascii", "replace") for holder in found if holder), "")


def stands_for(job: Job) -> list[str]:
    """Return the ids of the last jobs that were not enqueued because this one held their unique key, at most five.

    They are known for an hour; none while the broker does not answer. Asked only of an actor with a unique key.
    """
    actor = dramatiq.get_broker().actors.get(job.actor)
    if "unique_key" not in job.options and (actor is None or "unique_key" not in actor.options):
        return []
    with contextlib.suppress(BrokerError):
        for family in families([job.queue]):
            [found] = family.calls.look([("HGET", family.keys.stand_ins, f"for {job.id}")])
            return str(found or b"", "ascii", "replace").split()
    return []


def find_untracked(job_id: str) -> Job | None:
    """Return an unfinished job without a record, as after ``track=False``, by its message, or ``None``."""
    message = find_unrecorded(facilities(), job_id) if is_message_id(job_id) else None
    return None if message is None else _by_message(message)


def running_jobs(parent: str = "") -> list[Job]:
    """Return what runs, the longest first, for tables of the overview, of a queue, of an actor and of workers.

    A message that a worker has fetched and not started is left out, unless it keeps no record; likewise what lies on a
    server that does not answer while others do. What a process runs that answers nothing may have no record of that:
    its supervisor knows it.

    Args:
        parent: Id of the job that sent them; those of any without it.
    """
    found: list[Job] = []
    asked = answering_families()
    for seen in leased(asked):
        job = job_of_message(seen.id, seen.queue, seen.body, due_at=None)
        job = replace(job, attempts=job.attempts + 1, worker=seen.lease_owner.rpartition("/")[0])
        if job.actor and parent in ("", job.parent):
            found.append(job)
    records = records_of([job.id for job in found], queues=[family.keys.queue for family in asked])
    silent: dict[tuple[str, int | None], SilentChild] = {}
    with contextlib.suppress(BrokerError):
        silent = silent_children(facilities().pools.read_all() if found else ())
    jobs = []
    for sent in found:
        record, child = records.get(sent.id), silent.get((sent.holder.member, sent.holder.child))
        started_at = None if child is None else child.runs.get(sent.id)
        if record is not None and record.state == "running":
            started_at = record.started_at
        elif record is not None and (child is None or sent.id not in child.runs):
            continue
        silent_ms = 0 if child is None else child.silent_ms
        job = replace(record or sent, state="running", worker=sent.worker, started_at=started_at, silent_ms=silent_ms)
        jobs.append(job)
    return sorted(jobs, key=lambda job: (job.started_at is None, job.started_at or 0, job.id))


def running_or_none(parent: str = "") -> list[Job] | None:
    """Return what runs, for a page; ``None`` while the broker is unavailable."""
    try:
        return running_jobs(parent)
    except BrokerError:
        return None


def silent_children(reports: Iterable[PoolReport]) -> dict[tuple[str, int | None], SilentChild]:
    """Return the children that answer nothing, by supervisor and number."""
    return {(report.member, child.number): child for report in reports for child in report.silent}


def families(queues: Iterable[str] | None = None) -> list[QueueOperations]:
    """Return the families of queues of the yard, by default of all; none on a broker that cannot be browsed."""
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        return []
    wanted = None if queues is None else set(queues)
    return [broker.lane(queue.name)[0] for queue in declared_yard().queues if wanted is None or queue.name in wanted]


def answering_families() -> list[QueueOperations]:
    """Return the families of the yard's queues, without those that are away or start nothing."""
    return asked_families("")[0]


def asked_families(queue: str) -> tuple[list[QueueOperations], tuple[str, ...]]:
    """Return the family of a queue; for "" those that answer, and the names of the others."""
    found = families([queue] if queue else None)
    if queue or not found:
        return found, ()
    names = [family.keys.queue for family in found]
    away = servers_of(found[0].calls, facilities().records.keys, names).away().starts_nothing
    return [family for family in found if family.keys.queue not in away], tuple(name for name in names if name in away)


def records_of(ids: list[str], *, queues: Sequence[str] = ()) -> dict[str, Job]:
    """Return the records of jobs that have one; ``queues`` are theirs, where they are known."""
    found = facilities().records.read_many(ids, queues=queues, partly=True) if ids else []
    return {record.id: record for record in found if record is not None}


def limit_of(job: Job) -> int | None:
    """Return the run time (ms) after which a job is interrupted: its message's, else its actor's, else its queue's."""
    actor = dramatiq.get_broker().actors.get(job.actor)
    own = job.options.get("time_limit") or (actor.options.get("time_limit") if actor is not None else None)
    if isinstance(own, int | float):
        return int(own)
    try:
        return declared_yard().queue_of(job.queue).soft_limit_ms
    except UnknownQueue:
        return None
