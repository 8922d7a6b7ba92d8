"""The history writer: moves ended attempts from the broker's streams into the database, and deletes old rows."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.db import DataError, IntegrityError, connection, models, transaction

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.redis.own_keys import UNREADABLE
from switchyard.broker.stores.history_streams import EndedJob, HistoryEntry, HistoryStreams, decode_rows, fields_of
from switchyard.broker.stores.job_records import STEPS, sequence
from switchyard.conf import switchyard_settings
from switchyard.database import storable, tidy_connections
from switchyard.history.fact_keeper import FactKeeper
from switchyard.history.filters import TAG, search_text, searched_names
from switchyard.history.models import AttemptRow, JobRow, SearchValue
from switchyard.history.queries import were_enqueued
from switchyard.loggers import get_logger
from switchyard.long_running import HISTORY_WRITER, RENEW_S, Leadership, LogThrottle, run_until_signal
from switchyard.middleware.redaction import HIDDEN
from switchyard.outbox.relay import Relay
from switchyard.payload import shown_arguments

LARGEST_ARGUMENTS_BYTES: Final = 1_024
LARGEST_RESULT_BYTES: Final = 1_024
LARGEST_NUMBER: Final = 2**31 - 1
FAILED: Final = frozenset({"dead", "expired", "retrying"})


class Rows(NamedTuple):
    """Columns by name of the rows that one ended attempt becomes; ``values`` are names and values it is found by."""

    job: dict[str, Any]
    attempt: dict[str, Any] | None
    values: list[tuple[str, str]]


def rows_of(ended: EndedJob, queue: str) -> Rows:
    """Return the rows of an ended attempt of a queue; ``ValueError`` where it has no id, or no state that is known."""
    if not ended.id or len(ended.id) > 200 or ended.state not in STEPS:
        raise ValueError(f"state {ended.state!r:.50}, an id of {len(ended.id)} characters")
    message = fields_of(ended.body)
    options = _of_type(dict, message.get("options"))
    args, kwargs = _of_type(list, message.get("args")), _of_type(dict, message.get("kwargs"))
    shown = shown_arguments(str(message.get("actor", "")), args, kwargs) if args or kwargs else {}
    job = _job(ended, queue, message, options) | {"arguments": _cut_json(shown)}
    attempt = _attempt(ended) if ended.error is not None or ended.logs else None
    return Rows(job, attempt, list(dict.fromkeys(_search_values(shown, job["actor"], options))))


def _job(ended: EndedJob, queue: str, message: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    origin = _of_type(dict, options.get("origin"))
    enqueued_at = _time(options.get("enqueued_at")) or _time(message.get("sent_at"))
    started_at, finished_at = _time(ended.started_at), _time(ended.finished_at) or 0
    ready_at = _time(options.get("due_at")) or enqueued_at
    failed = ended.state in FAILED
    return _where_it_ran(ended) | {
        "job_id": storable(ended.id),
        "sequence": sequence(generation=_number(ended.generation), attempts=_number(ended.attempt), state=ended.state),
        "state": ended.state,
        "actor": _text(message.get("actor"), 255),
        "queue": queue,
        "owner": _text(options.get("owner"), 200) or None,
        "attempts": _number(ended.attempt),
        "generation": _number(ended.generation),
        "enqueued_at": enqueued_at,
        "not_succeeded_at": None if ended.state == "succeeded" else finished_at,
        "wait_ms": None if started_at is None or ready_at is None else max(0, started_at - ready_at),
        "run_ms": None if started_at is None else max(0, finished_at - started_at),
        "failed_at": finished_at if failed else None,
        "parent": _text(options.get("parent"), 200) or None,
        "request_id": _text(origin.get("request"), 200),
        "user": _text(origin.get("user"), 200),
        "schedule": _text(origin.get("schedule"), 255),
        "tags": json.dumps(_tags(options)),
        "result": storable(ended.result) if ended.result and len(ended.result) <= LARGEST_RESULT_BYTES else "",
        "kept_in": _text(ended.kept_in, 255) or None,
    }


def _attempt(ended: EndedJob) -> dict[str, Any]:
    return _where_it_ran(ended) | {
        "job_id": storable(ended.id),
        "generation": _number(ended.generation),
        "attempt": _number(ended.attempt),
        "state": ended.state,
        "fingerprint": "" if ended.error is None else _text(ended.error.fingerprint, 64),
        "logs": storable(ended.logs or ""),
    }


def _where_it_ran(ended: EndedJob) -> dict[str, Any]:
    """Return the columns that a job and an attempt have in common."""
    error = ended.error
    return {
        "reason": _text(ended.reason, 32),
        "lane": _text(ended.lane, 80),
        "pool": _text(ended.pool, 64),
        "worker": _text(ended.worker, 255),
        "release": _text(ended.release, 64),
        "started_at": _time(ended.started_at),
        "finished_at": _time(ended.finished_at) or 0,
        "error_type": "" if error is None else _text(error.type, 255),
        "error_message": "" if error is None else _text(error.message, 500),
        "fingerprint": None if error is None else _text(error.fingerprint, 64) or None,
    }


def _cut_json(shown: dict[str, Any]) -> str:
    if not shown:
        return ""
    raw = json.dumps(shown, ensure_ascii=False, default=repr).encode()
    if len(raw) <= LARGEST_ARGUMENTS_BYTES:
        return str(raw, "utf-8")
    return str(raw[: LARGEST_ARGUMENTS_BYTES - 3], "utf-8", "ignore") + "…"


def _search_values(shown: dict[str, Any], actor: str, options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in searched_names(actor):
        value = shown.get(name)
        if value != HIDDEN and (text := search_text(value)) is not None:
            yield _text(name, 100), text
    for tag in _tags(options):
        yield TAG, tag


def _tags(options: dict[str, Any]) -> list[str]:
    return [_text(tag, 64) for tag in _of_type(list, options.get("tags"))[:10] if isinstance(tag, str)]


def _of_type(kind: type[Any], value: Any) -> Any:
    """Return a value of a type, or an empty one of it: foreign clients write messages as well."""
    return value if isinstance(value, kind) else kind()


def _text(value: Any, longest: int) -> str:
    return "" if value is None else storable(str(value))[:longest]


def _number(value: int) -> int:
    return min(max(value, 0), LARGEST_NUMBER)


def _time(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= LARGEST else None


# A batch holds SQLite's only write lock for some tens of milliseconds.
BATCH: Final = 200
EVERY_S: Final = 60.0
# Counting 20 million rows of PostgreSQL takes a second.
COUNT_EVERY_S: Final = 600.0
# Batches of one round: new rows are written in between.
ROUND_BATCHES: Final = 20
ROWS_SQLITE: Final = 2_000_000
ROWS: Final = 20_000_000
DAY_MS: Final = 86_400_000


def most_rows() -> int:
    """Return the number of jobs that the history keeps."""
    own = switchyard_settings().history_rows
    return own or (ROWS_SQLITE if connection.vendor == "sqlite" else ROWS)


class Retention:
    """Deletes what is too old or too many, a bounded number of rows at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = 0.0
        self._next_count_s = 0.0
        self._too_many = 0

    def work(self, *, while_true: Callable[[], bool]) -> int:
        """Delete a round of rows if it is due; return how many.

        Args:
            while_true: Asked before each batch; false ends the round.

        Raises:
            django.db.DatabaseError: the database did not answer.
        """
        if self._clock() < self._next_s:
            return 0
        if self._clock() >= self._next_count_s:
            self._too_many = max(0, JobRow.objects.count() - most_rows())
            self._next_count_s = self._clock() + COUNT_EVERY_S
        before = now_ms() - switchyard_settings().history_days * DAY_MS
        deleted = 0
        for _ in range(ROUND_BATCHES):
            if not while_true():
                break
            count = delete_oldest(before_ms=before, at_least=min(self._too_many, BATCH))
            deleted += count
            self._too_many = max(0, self._too_many - count)
            if count < BATCH:
                self._next_s = self._clock() + EVERY_S
                break
        if deleted:
            log.info("old jobs left the history", rows=deleted)
        return deleted


def delete_oldest(*, before_ms: int, at_least: int = 0) -> int:
    """Delete at most ``BATCH`` jobs that ended before a time, and ``at_least`` of the oldest ones; return how many."""
    with transaction.atomic():
        oldest = list(JobRow.objects.order_by("finished_at", "pk").values_list("pk", "job_id", "finished_at")[:BATCH])
        gone = [row for n, row in enumerate(oldest) if n < at_least or row[2] < before_ms]
        ids = [job_id for _, job_id, _ in gone]
        AttemptRow.objects.filter(job_id__in=ids).delete()
        SearchValue.objects.filter(job_id__in=ids).delete()
        JobRow.objects.filter(pk__in=[pk for pk, _, _ in gone]).delete()
    return len(gone)


LOGGER: Final = "switchyard.history"
log = get_logger(LOGGER)

# Entries that are read of each family at once, each with the rows of one acknowledged batch.
READ_LIMIT: Final = 100
# Rows of one transaction. On SQLite it holds the only write lock: 500 rows take tens of milliseconds of a processor,
# and at nice 19 seconds while others use every core.
BATCH_ROWS: Final = 500
SQLITE_BATCH_ROWS: Final = 100
POLL_S: Final = 0.5
PAUSE_S: Final = 2.0
# A burst is written in small rounds for a sixteenth of the time, and without a rest once it lasts this long: where
# processes outnumber cores, each round takes time from a worker (100 entries 0.17 s of a core, 10 take 0.04 s).
BURST_S: Final = 5.0
BURST_READ_LIMIT: Final = 10
REST_PER_WORK: Final = 15.0


class HistoryWriter:
    """Writer that moves rows while its process leads. A row is removed from the broker after it was committed.

    Args:
        renew_s: See ``Leadership``.
        poll_s: Seconds between two looks into empty streams.
        pause_s: Seconds after a failure of the database or the broker.
        burst_s: Seconds from the first row on for which the writer rests between its rounds.
    """

    def __init__(
        self, *, renew_s: float = RENEW_S, poll_s: float = POLL_S, pause_s: float = PAUSE_S, burst_s: float = BURST_S
    ) -> None:
        own = facilities()
        calls, keys = own.records.calls, own.records.keys
        self.leadership = Leadership(calls, keys, HISTORY_WRITER, renew_s=renew_s)
        self.streams = HistoryStreams(calls, keys, (queue.name for queue in own.yard.queues))
        self._retention = Retention()
        self._poll_s, self._pause_s, self._renew_s, self._burst_s = poll_s, pause_s, renew_s, burst_s
        self._throttle = LogThrottle("history", LOGGER)
        self._was_leading = False
        self._burst_since: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set, then release the lease."""
        log.info("history writer started")
        try:
            while not stop.is_set():
                stop.wait(self.step())
            self._burst_s = 0.0
            self.step()  # what the pools finished while they drained
        finally:
            self.leadership.release()
            connection.close()
        log.info("history writer stopped")

    def step(self) -> float:
        """Move one round of entries if this process leads; return the seconds to wait. Logs failures."""
        tidy_connections()
        started = time.monotonic()
        with self._throttle:
            leading = self.leadership.acquire_or_renew()
            moved = self._move() if leading else 0
            if leading:  # also while rows come without a pause: else old ones would never leave
                self._retention.work(while_true=self.leadership.acquire_or_renew)
            if leading != self._was_leading:
                log.info("this process writes the history" if leading else "another process writes the history")
            self._was_leading = leading
            if not moved:
                self._burst_since = None
                return self._poll_s if leading else self._renew_s
            if self._burst_since is None:
                self._burst_since = started
            # On a busy machine a round may take seconds: the rest ends with the burst, and in time for the lease.
            return min(REST_PER_WORK * (time.monotonic() - started), self._burst_left_s(), self._renew_s)
        connection.close()  # after a failure
        return self._pause_s

    def _burst_left_s(self) -> float:
        """Return for how much longer the workers come first, as rows began to come shortly ago."""
        if self._burst_since is None:
            return self._burst_s
        return max(self._burst_since + self._burst_s - time.monotonic(), 0.0)

    def _move(self) -> int:
        """Move the oldest entries of every family; return how many there were."""
        entries = self.streams.read(limit=BURST_READ_LIMIT if self._burst_left_s() else READ_LIMIT)
        most = SQLITE_BATCH_ROWS if connection.vendor == "sqlite" else BATCH_ROWS
        for batch, rows in _batches(entries, most):
            if not self.leadership.acquire_or_renew():
                break
            written = len(rows) - self._write(rows)
            if skipped := max(sum(entry.count for entry in batch) - written, 0):
                log.error("rows of the history cannot be read, left out", rows=skipped)
            self.streams.remove(batch, written=written, skipped=skipped)
        return len(entries)

    def _write(self, rows: Sequence[Rows]) -> int:
        """Write rows and return how many the database refused, one by one where it refused all."""
        try:
            write(rows)
        except (DataError, IntegrityError) as error:
            if len(rows) > 1:
                return sum(self._write([row]) for row in rows)
            log.error("the database refuses a row of the history", job_id=rows[0].job["job_id"], error=str(error))
            return 1
        return 0


def _batches(entries: Sequence[HistoryEntry], most: int) -> Iterator[tuple[list[HistoryEntry], list[Rows]]]:
    """Yield entries with those of their rows that can be used, about ``most`` rows at a time."""
    batch, rows = list[HistoryEntry](), list[Rows]()
    for entry in entries:
        batch.append(entry)
        rows += _read(entry)
        if len(rows) >= most:
            yield batch, rows
            batch, rows = [], []
    if batch:
        yield batch, rows


def _read(entry: HistoryEntry) -> Iterator[Rows]:
    try:
        for ended in decode_rows(entry.rows):
            try:
                row = rows_of(ended, entry.queue)
            except Exception as error:  # noqa: BLE001  whatever a foreign client wrote must not stop the others
                log.error("a row of the history cannot be used", job_id=ended.id[:200], error=repr(error)[:200])
            else:
                yield row
    except UNREADABLE as error:
        log.error("an entry of a history stream cannot be read", queue=entry.queue, id=entry.id, error=str(error))


# Of the last failure; they outlast a later attempt that succeeds.
FAILURE: Final = ("failed_at", "error_type", "error_message", "fingerprint")


# Writes rows, given as values by column.
Write = Callable[[Sequence[dict[str, Any]]], None]


def write(rows: Sequence[Rows]) -> None:
    """Write the rows of ended attempts in one transaction; after a ``DatabaseError`` nothing was written."""
    values: list[dict[str, Any]] = []
    with transaction.atomic():
        write_jobs([row.job for row in rows])
        write_attempts([row.attempt for row in rows if row.attempt is not None])
        for row in rows:
            of_job = {"job_id": row.job["job_id"], "finished_at": row.job["finished_at"]}
            values += [{"name": name, "value": value, **of_job} for name, value in row.values]
        write_values(values)


def _upsert(model: type[models.Model], key: str, on_conflict: str) -> Write:
    table = model._meta.db_table
    names = tuple(str(field.column) for field in model._meta.concrete_fields if not field.primary_key)
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join(["%s"] * len(names))
    statement = f'INSERT INTO "{table}" ({columns}) VALUES ({places}) ON CONFLICT ({key}) {on_conflict}'  # noqa: S608

    def run(rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(statement, [[row[name] for name in names] for row in rows])

    return run


def _jobs() -> Write:
    table = JobRow._meta.db_table
    changes = []
    for name in (each.column for each in JobRow._meta.concrete_fields if not each.primary_key):
        new = f'excluded."{name}"'
        if name in FAILURE:
            new = f'CASE WHEN excluded."failed_at" IS NULL THEN "{table}"."{name}" ELSE {new} END'
        if name != "job_id":
            changes.append(f'"{name}" = {new}')
    later = f'excluded."sequence" > "{table}"."sequence"'
    return _upsert(JobRow, '"job_id"', f"DO UPDATE SET {', '.join(changes)} WHERE {later}")


def _values() -> Write:
    later = f'excluded."finished_at" > "{SearchValue._meta.db_table}"."finished_at"'
    change = f'DO UPDATE SET "finished_at" = excluded."finished_at" WHERE {later}'
    return _upsert(SearchValue, '"job_id", "name", "value"', change)


write_jobs, write_values = _jobs(), _values()
write_attempts = _upsert(AttemptRow, '"job_id", "generation", "attempt"', "DO NOTHING")


STOP_WITHIN_S = 10.0


# The loops that run beside the pools, each until its event is set.
RUNS: Final[tuple[Callable[[threading.Event], None], ...]] = (
    lambda stop: HistoryWriter().run(stop),
    lambda stop: FactKeeper().run(stop),
    lambda stop: Relay(were_enqueued).run(stop),
)


def run_until_stopped() -> None:
    """Run the writer, and the relay of the outbox beside it, until a signal stops them.

    Raises:
        SystemExit: with 70, when it crashed.
    """
    yield_to_other_work()
    run_until_signal(*RUNS, name="history writer", logger=LOGGER, stop_within_s=STOP_WITHIN_S)


NICE: Final = 19
# SQLite has one lock for all that write: on a busy machine a holder at the lowest priority would stop them for minutes.
NICE_WITH_THE_LOCK: Final = 5
AUTOGROUP: Final = Path("/proc/self/autogroup")


def yield_to_other_work() -> None:
    """Lower the priority of this process, and of its session if it leads one, unless it is as low already.

    Where the kernel groups processes by session (``kernel.sched_autogroup_enabled``), a process is nice only to those
    of its own session, and sessions have a priority of their own.
    """
    wanted = NICE_WITH_THE_LOCK if connection.vendor == "sqlite" else NICE
    nice = max(wanted, os.getpriority(os.PRIO_PROCESS, 0))  # the kernel lets none but root raise a priority again
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without such groups, or a read-only /proc
            AUTOGROUP.write_text(str(nice))
