"""Records of jobs: state, attempts, progress, result and error, each kept for a while and followed live.

While a job waits its message is its record. From its start on a record lies in its queue family, after its end for a
short while. Late news never overwrites newer: each live record carries a sequence that grows with the job (requeues,
attempts, step within the attempt).
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final, NoReturn

import msgspec
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.results import ResultBackend, ResultFailure, ResultMissing, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, BrokerRefused, BrokerUnavailable, ResultNotKept
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import Call, RedisCalls, Word, call_together
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.history_streams import DIGITS, ENDED, STEPS, Step, ended_step, sequence
from switchyard.broker.stores.job_record import FamilyAnswer, Job, cancelled_job, newest_job
from switchyard.broker.stores.result_stores import ResultStores

logger = logging.getLogger("switchyard.broker")

HOUR_MS = 3_600_000
LIVE_TTL_MS: Final = 9 * 24 * HOUR_MS
FINISHED_TTL_MS: Final = HOUR_MS
# Marks of ended jobs that were sent with an id of their own: it is not run again after the record has left. Outside of
# the records' budget, and kept longer than an Idempotency-Key, whose claim is older than the end of its job.
MARK_TTL_MS: Final = 25 * HOUR_MS
MEBIBYTE: Final = 1024 * 1024
WRITE, READ, PROGRESS, CANCEL = (
    script(name, folder="") for name in ("job_write", "job_read", "job_progress", "job_cancel")
)
LARGEST_SEQUENCE: Final = 10**DIGITS - 1
AT_ONCE: Final = 100
# Ends of one call: each is looked for in up to 16 buckets. 100 of them take a slow server 5 ms.
ENDS_AT_ONCE: Final = 25
# Errors of what is written or of what is there; a repetition gets the same. The last is Valkey's of a failed script.
REFUSED_ALWAYS: Final = ("WRONGTYPE", "ERR", "user_script:")
ANSWERS: Final = {1: "written", 0: "late", -1: "cancelled"}

__all__ = ["ENDED", "STEPS", "Job", "JobRecords", "RecordLimits", "Step", "sequence"]


class RecordLimits(msgspec.Struct, frozen=True):
    """Limits of what the broker keeps of ended jobs, over all queues together.

    Args:
        records_bytes: Records of ended jobs; over it the oldest are dropped.
        history_bytes: Ended attempts that are not in the database yet; over it the oldest are dropped and counted.
        ended_ms: How long a record is kept after its job's end.
    """

    records_bytes: int = 64 * MEBIBYTE
    history_bytes: int = 64 * MEBIBYTE
    ended_ms: int = FINISHED_TTL_MS


class JobRecords:
    """Write and read records. Every method may raise what :meth:`switchyard.broker.redis.calls.RedisCalls.call` raises.

    Args:
        queues: Names of all queues, without lanes.
        finds_waiting: The broker finds a waiting message by its id; without that a record is written at enqueue.

    Attributes:
        history_share: Bytes of the history's stream of one queue family.
        results: Stores of results that records do not hold.
    """

    def __init__(
        self,
        calls: RedisCalls,
        keys: Keys,
        queues: Iterable[str],
        *,
        limits: RecordLimits | None = None,
        finds_waiting: bool = True,
    ) -> None:
        self.calls, self.keys = calls, keys
        self.results = ResultStores()
        self.queues = tuple(dict.fromkeys(queues))
        self.limits = limits or RecordLimits()
        self.finds_waiting = finds_waiting
        share = max(len(self.queues), 1)
        self.history_share = self.limits.history_bytes // share
        budgets = self.limits.ended_ms, self.limits.records_bytes // share, self.history_share
        self._limits: list[Word] = [*budgets, LIVE_TTL_MS]

    def stream_key(self, job_id: str, queue: str) -> str:
        """Name of the stream of a job's events: fields ``event`` (state, progress, end) and ``data`` (JSON)."""
        return self.keys.queue(queue).job_events(job_id)

    def write(self, steps: Sequence[Step]) -> list[str]:
        """Record steps, at most 500 of a queue and one of a job, those of all queues in one round trip.

        Returns:
            For each ``written``; ``late`` when a later step is known, or its message is gone; ``cancelled`` when the
            job was cancelled before it; ``refused``, and logged, when the server cannot write it, for example because a
            key is of a wrong type: acknowledgements of every queue wait for the others.
        """
        if not steps:
            return []
        try:
            return self._write(steps)
        except BrokerRefused as error:
            if not error.code.startswith(REFUSED_ALWAYS):
                raise
            if len(steps) > 1:
                return [self.write([step])[0] for step in steps]
            step = steps[0]
            logger.error("job %s of queue %s is not recorded as %s: %s", step.job_id, step.queue, step.state, error)
            return ["refused"]

    def _write(self, steps: Sequence[Step]) -> list[str]:
        by_queue: defaultdict[str, list[int]] = defaultdict(list)
        for position, step in enumerate(steps):
            by_queue[step.queue].append(position)
        batches, order = [], []
        for queue, positions in by_queue.items():
            batch, written = self._batch(queue, [(position, steps[position]) for position in positions])
            batches.append(batch)
            order.append(written)
        if len(batches) == 1:
            answers = [self.calls.call(WRITE, *batches[0])]
        else:
            answers = call_together(self.calls, WRITE, batches)
        results = ["written"] * len(steps)
        for positions, answer in zip(order, answers, strict=True):
            if answer.count(1) < len(answer):
                for position, code in zip(positions, answer, strict=True):
                    results[position] = ANSWERS[code]
        return results

    def _batch(self, queue: str, steps: Sequence[tuple[int, Step]]) -> tuple[Call, list[int]]:
        """Return keys and arguments for the steps of a queue, and the positions in the order of the answers."""
        words: tuple[list[Word], ...] = ([], [], [], [])
        places: tuple[list[int], ...] = ([], [], [], [])
        live, kept, alike, others = words
        rows: list[bytes] = []
        for position, step in steps:
            kind, row = 3, step.rows
            if step.state not in ENDED:
                kind = 0
                live += (step.job_id, f"{min(step.sequence, LARGEST_SEQUENCE):0{DIGITS}d}", step.record)
            elif step.kept_ms > self.limits.ended_ms:
                kind = 1
                kept += (step.job_id, step.kept_ms, step.record)
            elif row and row[-1] is step.record:  # of most, so it is sent once
                kind, row = 2, row[:-1]
                alike += (step.job_id, step.record)
            else:
                others += (step.job_id, step.record)
            places[kind].append(position)
            rows += row
        k = self.keys.queue(queue)
        keys = [k.jobs, k.progress, k.followed, k.ended, k.history, k.bodies, k.notes]
        marks = [step.job_id for _, step in steps if step.marked]
        limits = [*self._limits, "1" if self.finds_waiting else ""]
        args: list[Word] = [*limits, len(rows), b"".join(rows), *map(len, places[:3]), len(marks), MARK_TTL_MS]
        return (keys, [*args, *marks, *chain(*words)]), [*chain(*places)]

    def read(self, job_id: str) -> Job | None:
        """Return a job's record, or ``None`` when the broker does not know it. Unreadable fields are left out."""
        return self._find([job_id])[0]

    def read_many(
        self, job_ids: Sequence[str], *, queues: Sequence[str] = (), partly: bool = False
    ) -> list[Job | None]:
        """Return the records of jobs, of some queues or of any; a call of 100 takes the server about 2 ms.

        With ``partly`` those in keys of a wrong type are unknown, else they raise ``BrokerRefused``.
        """
        chunks = (job_ids[start : start + AT_ONCE] for start in range(0, len(job_ids), AT_ONCE))
        return [found for chunk in chunks for found in self._find(chunk, queues=queues, partly=partly)]

    def states(self, job_ids: Sequence[str], *, queues: Sequence[str] = (), partly: bool = False) -> list[str | None]:
        """Return the state of each job, 100 in a round trip; ``None`` for one that is unknown or unreadable."""
        records = self.read_many(job_ids, queues=queues, partly=partly)
        return [None if found is None else found.state for found in records]

    def _find(self, job_ids: Sequence[str], *, queues: Sequence[str] = (), partly: bool = False) -> list[Job | None]:
        if not job_ids:
            return []
        queues = queues or self.queues
        batches: list[Call] = []
        for k in map(self.keys.queue, queues):
            due = [k.due(lane) for lane in ("live", "retry", "alone")]
            others = [k.dead_letters, k.notes, k.quarantined_bodies, k.purges]
            batches.append(([k.jobs, k.progress, k.ended, k.bodies, *due, *others], job_ids))
        found = call_together(self.calls, READ, batches, partly=True)
        away = next((answer for answer in found if isinstance(answer, BrokerError)), None)
        known = [(queue, answer) for queue, answer in zip(queues, found, strict=True) if isinstance(answer, list)]
        records = [
            newest_job(
                job_id,
                [FamilyAnswer(queue, *answer[at]) for queue, answer in known if answer[at]],
                finds_waiting=self.finds_waiting,
            )
            for at, job_id in enumerate(job_ids)
        ]
        # A job that no node knows may be on the one that does not answer, or in the key that cannot be read.
        if away is not None and None in records and not (partly and isinstance(away, BrokerRefused)):
            raise away
        return records

    def follow(self, job_id: str) -> str | None:
        """Keep a job's events from now on, and return the name of their stream; ``None`` for an unknown job.

        By default none are kept: they take more memory than the job.
        """
        record = self.read(job_id)
        if record is None:
            return None
        key, now = self.keys.queue(record.queue).followed, now_ms()
        self.calls.pipeline([("ZREMRANGEBYSCORE", key, "-inf", now), ("ZADD", key, now + LIVE_TTL_MS, job_id)])
        return self.stream_key(job_id, record.queue)

    def progress(self, job_id: str, progress: dict[str, Any], *, queue: str | None = None) -> bool:
        """Record the progress of a running job of any queue, or of one; ``True`` when it is asked to stop."""
        batches: list[Call] = []
        for name in self.queues if queue is None else (queue,):
            k = self.keys.queue(name)
            keys = [k.jobs, k.progress, k.followed, k.ended, k.notes]
            batches.append((keys, [job_id, json.dumps(progress), LIVE_TTL_MS]))
        return any(call_together(self.calls, PROGRESS, batches))

    def cancel(self, job_id: str, *, place: str = "unknown", known: Job | None = None, row: bool = True) -> str:
        """Record the cancellation of a job.

        Args:
            place: Answer of the broker: ``cancelled`` when it never starts, ``asked`` when a worker holds it. Otherwise
                the record decides whether it runs.
            known: Its record as it was before.
            row: Write a row for the history as well.

        Returns:
            ``unknown``, ``ended``, ``asked`` (it runs, and stops at its next step) or ``cancelled`` (it never starts).
        """
        record = known or self.read(job_id)
        if record is None or record.end_recorded:
            return "unknown" if record is None else "ended"
        if self.finds_waiting:
            if place != "cancelled":
                return place
            kept_ms = 0
        else:
            k = self.keys.queue(record.queue)
            place = str(self.calls.call(CANCEL, [k.jobs, k.notes], [job_id, place]), "utf-8")
            if place != "cancelled":
                return place
            kept_ms = LIVE_TTL_MS  # its message may be due in a week, and must still find here that it is cancelled
        self.write([ended_step(record.queue, cancelled_job(record), in_history=row, kept_ms=kept_ms)])
        return "cancelled"

    def write_cancelled(self, ended: Sequence[Step]) -> None:
        """Record the ends of jobs that were cancelled, whose rows for the history are written."""
        for start in range(0, len(ended), ENDS_AT_ONCE):
            self.write([msgspec.structs.replace(step, rows=()) for step in ended[start : start + ENDS_AT_ONCE]])

    def is_marked(self, job_id: str) -> bool:
        """Return whether a job has left a mark of its end, in one round trip."""
        return any(
            self.calls.pipeline([("EXISTS", self.keys.queue(queue).ended_mark(job_id)) for queue in self.queues])
        )

    def cancel_requested(self, job_id: str) -> bool:
        """Whether the cancellation of a job was requested, where only its record says so."""
        commands = [("HEXISTS", self.keys.queue(queue).notes, f"asked:{job_id}") for queue in self.queues]
        return any(self.calls.pipeline(commands))


SWEEP: Final = script("job_sweep", folder="")
SWEPT_AT_ONCE: Final = 200


def sweep(records: JobRecords) -> int:
    """Drop live records whose message is gone, in many short calls; return their number.

    After ``BrokerUnavailable`` the next sweep begins anew.
    """
    dropped = 0
    for queue in records.queues if records.finds_waiting else ():
        keys, cursor = records.keys.queue(queue), "0"
        while True:
            answer = records.calls.call(SWEEP, [keys.jobs, keys.progress, keys.bodies], [cursor, SWEPT_AT_ONCE])
            cursor, dropped = str(answer[0], "ascii"), dropped + int(answer[1])
            if cursor == "0":
                break
    return dropped


FIRST_PAUSE_S: Final = 0.005
LONGEST_PAUSE_S: Final = 0.25


class RecordResults(ResultBackend):
    """Dramatiq's result backend on the records of jobs. The middleware ``Status`` writes the results.

    ``remedy`` is for jobs that have not ended on a broker that does not run them by itself.
    """

    def __init__(self, records: JobRecords, broker: Broker, *, remedy: str = "") -> None:
        super().__init__()
        self._remedy = remedy
        self._records = records
        self._broker = broker

    def get_result(self, message: Message[Any], *, block: bool = False, timeout: int | None = None) -> Any:
        """Return a job's result; ``None`` of a job that returned nothing.

        Args:
            block: Wait until the job has ended: the record is read after 5 ms, then less often, every 250 ms at last.
            timeout: Milliseconds to wait, 10,000 by default. 0 reads once.

        Raises:
            ResultMissing: the job has not ended, or its result is no longer kept.
            ResultTimeout: the same, after the time.
            ResultFailure: the job failed, was cancelled or expired; with the name and the text of the exception.
            ResultNotKept: its actor keeps no results.
            BrokerUnavailable: the server did not answer; with ``block`` at the end of the time.
            ResultStoreUnavailable: the store that has the result did not answer within 2 s.
        """
        self._refuse_unkept(message)
        until_s = time.monotonic() + (DEFAULT_TIMEOUT if timeout is None else timeout) / 1000
        pause_s = FIRST_PAUSE_S
        while True:
            away: BrokerUnavailable | None = None
            try:
                record = self._records.read(message.message_id)
            except BrokerUnavailable as error:
                record, away = None, error
            if record is not None and record.ended:
                return self._result_of(record, message, block=block)
            left_s = until_s - time.monotonic()
            if not block or left_s <= 0:
                if away is not None:
                    raise away
                raise self._not_ended(message, timeout=timeout, block=block)
            time.sleep(min(pause_s, left_s))
            pause_s = min(1.5 * pause_s, LONGEST_PAUSE_S)

    def _not_ended(self, message: Message[Any], *, timeout: int | None, block: bool) -> ResultMissing | ResultTimeout:
        job = f"actor {message.actor_name}: job {message.message_id} has not ended, or its record is no longer kept"
        if not block:
            wait = "wait for it with get_result(block=True, timeout=10_000), in milliseconds"
            return ResultMissing(f"{job}; {self._remedy or wait}")
        waited_ms = DEFAULT_TIMEOUT if timeout is None else timeout
        look = f"see manage.py switchyard jobs show {message.message_id}"
        return ResultTimeout(f"{job}, after {waited_ms} ms; {self._remedy or look}")

    def _result_of(self, record: Job, message: Message[Any], *, block: bool) -> Any:
        ttl_ms = self._option(message, "result_ttl")
        too_old = type(ttl_ms) is int and now_ms() > (record.finished_at or now_ms()) + ttl_ms
        if not too_old and record.kept_in and record.error is None:
            return self._stored(record, message, block=block)
        if too_old or (record.result is None and record.error is None and not self._kept(record, message)):
            raise _no_longer_kept(message, block=block)
        if record.error is not None:
            _fail(record.error["type"], record.error["message"])
        if record.state == "cancelled" and record.reason == "skipped":  # as Dramatiq stores it
            return None
        if record.state != "succeeded":
            _fail(record.state.capitalize(), f"the job is {record.state}")
        return record.result

    def _stored(self, record: Job, message: Message[Any], *, block: bool) -> Any:
        text = self._records.results.load(record.id, record.kept_in)
        if text is None:
            raise _no_longer_kept(message, block=block)
        return json.loads(text)

    def _kept(self, record: Job, message: Message[Any]) -> bool:
        """Return whether a result that is ``None`` was kept: its actor may be unknown here."""
        if message.actor_name in self._broker.actors or record.state != "succeeded":
            return True
        return record.options.get("store_results") is True

    def _refuse_unkept(self, message: Message[Any]) -> None:
        name = message.actor_name
        if name not in self._broker.actors:
            return
        if self._option(message, "store_results") is not True:
            fact = "keeps no results, store_results is not set"
            raise ResultNotKept(name, fact, "declare it with @dramatiq.actor(store_results=True)")
        if self._option(message, "track") is False:
            raise ResultNotKept(name, "keeps no record, track is False", "leave out track: the result is in the record")

    def _option(self, message: Message[Any], name: str) -> Any:
        value = message.options.get(name)
        actor = self._broker.actors.get(message.actor_name)
        return actor.options.get(name) if value is None and actor is not None else value


def _no_longer_kept(message: Message[Any], *, block: bool) -> ResultMissing | ResultTimeout:
    job = f"actor {message.actor_name}: the result of job {message.message_id} is no longer kept"
    return (ResultTimeout if block else ResultMissing)(f"{job}; a longer result_ttl keeps it longer")


def _fail(kind: str, text: str) -> NoReturn:
    raise ResultFailure(f"actor raised {kind}: {text}", kind, text)
