"""The history writer: moves ended attempts from the broker's streams into the database, in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    close_old_connections,
    connection,
    models,
    transaction,
)

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.ended_jobs import decode_rows
from switchyard.broker.stores.history_streams import HistoryEntry, HistoryStreams
from switchyard.history import retention
from switchyard.history.columns import Rows, rows_of
from switchyard.history.models import AttemptRow, JobRow, SearchValue
from switchyard.leadership import HISTORY_WRITER, LEASE_S, RENEW_S, Leadership
from switchyard.log_throttle import LogThrottle
from switchyard.loggers import get_logger

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
# A burst is written beside its workers in small rounds for a sixteenth of the time, and without a rest once it lasts
# this long: where processes outnumber cores, each round of the writer takes time from a worker. A round of 100 entries
# took 0.17 s of a core from a drain of 0.75 s, one of 10 takes 0.04 s.
BURST_S: Final = 5.0
BURST_READ_LIMIT: Final = 10
REST_PER_WORK: Final = 15.0


@dataclass(slots=True)
class _Batch:
    entries: list[HistoryEntry] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    skipped: int = 0


class HistoryWriter:
    """Writer that moves rows while its process leads. A row is removed from the broker after it was committed.

    While the database is away nothing is removed: the streams grow up to their bound, and the broker counts what it
    drops.

    Args:
        lease_s: Seconds until another writer takes over; see ``Leadership``.
        renew_s: Seconds between renewals of the lease; see ``Leadership``.
        poll_s: Seconds between two looks into empty streams.
        pause_s: Seconds after a failure of the database or the broker.
        burst_s: Seconds from the first row on for which the writer rests between its rounds.
    """

    def __init__(
        self,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        poll_s: float = POLL_S,
        pause_s: float = PAUSE_S,
        burst_s: float = BURST_S,
    ) -> None:
        own = facilities()
        calls, keys = own.records.calls, own.records.keys
        self.leadership = Leadership(calls, keys, HISTORY_WRITER, lease_s=lease_s, renew_s=renew_s)
        self.streams = HistoryStreams(calls, keys, (queue.name for queue in own.yard.queues))
        self._retention = retention.Retention()
        self._poll_s, self._pause_s, self._renew_s = poll_s, pause_s, renew_s
        self._burst_s = burst_s
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
            self._release()
            connection.close()
        log.info("history writer stopped")

    def step(self) -> float:
        """Move one round of entries if this process leads; return the seconds to wait. Logs failures."""
        close_old_connections()
        started = time.monotonic()
        try:
            leading = self.leadership.acquire_or_renew()
            moved = self._move() if leading else 0
            if leading:  # also while rows come without a pause: else old ones would never leave
                self._retention.work(while_true=self.leadership.acquire_or_renew)
        except (DatabaseError, InterfaceError, BrokerError) as error:
            self._throttle.failed(error)
            connection.close()
            return self._pause_s
        self._throttle.succeeded()
        self._log_leadership(leading)
        if not moved:
            self._burst_since = None
            return self._poll_s if leading else self._renew_s
        if self._burst_since is None:
            self._burst_since = started
        # On a busy machine a round may take seconds: the rest ends with the burst, and in time for the lease.
        return min(REST_PER_WORK * (time.monotonic() - started), self._burst_left_s(), self._renew_s)

    def _burst_left_s(self) -> float:
        """Return for how much longer the workers come first, as rows began to come shortly ago."""
        if self._burst_since is None:
            return self._burst_s
        return max(self._burst_since + self._burst_s - time.monotonic(), 0.0)

    def _move(self) -> int:
        """Move the oldest entries of every family; return how many there were."""
        entries = self.streams.read(limit=BURST_READ_LIMIT if self._burst_left_s() else READ_LIMIT)
        for batch in _batches(entries, SQLITE_BATCH_ROWS if connection.vendor == "sqlite" else BATCH_ROWS):
            if not self.leadership.acquire_or_renew():
                break
            skipped = batch.skipped + self._write(batch.rows)
            if skipped:
                log.error("rows of the history cannot be read, left out", rows=skipped)
            written = len(batch.rows) + batch.skipped - skipped
            self.streams.remove(batch.entries, written=written, skipped=skipped)
        return len(entries)

    def _write(self, rows: Sequence[Rows]) -> int:
        """Write rows and return how many the database refused, one by one where it refused all."""
        try:
            write(rows)
        except (DataError, IntegrityError) as error:
            if len(rows) <= 1:
                log.error("the database refuses a row of the history", job_id=rows[0].job["job_id"], exc_info=error)
                return 1
            return sum(self._write([row]) for row in rows)
        return 0

    def _log_leadership(self, leading: bool) -> None:
        if leading != self._was_leading:
            log.info("this process writes the history" if leading else "another process writes the history")
        self._was_leading = leading

    def _release(self) -> None:
        try:
            self.leadership.release()
        except BrokerError as error:
            log.warning("the lease was not released, it expires by itself", error=str(error))


def _batches(entries: Sequence[HistoryEntry], most: int) -> Iterator[_Batch]:
    """Yield entries with their rows, about ``most`` rows at a time; what cannot be read is counted."""
    batch = _Batch()
    for entry in entries:
        rows, skipped = _read(entry)
        batch.entries.append(entry)
        batch.rows += rows
        batch.skipped += skipped
        if len(batch.rows) >= most:
            yield batch
            batch = _Batch()
    if batch.entries:
        yield batch


def _read(entry: HistoryEntry) -> tuple[list[Rows], int]:
    """Return the rows of an entry, and how many of it cannot be used."""
    rows: list[Rows] = []
    try:
        for ended in decode_rows(entry.rows):
            try:
                rows.append(rows_of(ended, entry.queue))
            except Exception as error:  # noqa: BLE001  whatever a foreign client wrote must not stop the others
                log.error("a row of the history cannot be used", job_id=ended.id[:200], error=repr(error)[:200])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("an entry of a history stream cannot be read", queue=entry.queue, id=entry.id, error=str(error))
    return rows, max(entry.count - len(rows), 0)


# Of the last failure; they outlast a later attempt that succeeds.
FAILURE: Final = ("failed_at", "error_type", "error_message", "fingerprint")


@dataclass(frozen=True, slots=True)
class Upsert:
    """A statement, and the order of its values."""

    statement: str
    names: tuple[str, ...]

    def run(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, given as values by column."""
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(self.statement, [[row[name] for name in self.names] for row in rows])


def write(rows: Sequence[Rows]) -> None:
    """Write the rows of ended attempts in one transaction.

    Raises:
        django.db.DatabaseError: nothing was written.
    """
    with transaction.atomic():
        JOBS.run([row.job for row in rows])
        ATTEMPTS.run([row.attempt for row in rows if row.attempt is not None])
        VALUES.run(
            [
                {"name": name, "value": value, "job_id": row.job["job_id"], "finished_at": row.job["finished_at"]}
                for row in rows
                for name, value in row.values
            ]
        )


def _upsert(model: type[models.Model], key: str, on_conflict: str) -> Upsert:
    table = model._meta.db_table
    names = tuple(str(field.column) for field in model._meta.concrete_fields if not field.primary_key)
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join(["%s"] * len(names))
    statement = f'INSERT INTO "{table}" ({columns}) VALUES ({places}) ON CONFLICT ({key}) {on_conflict}'  # noqa: S608
    return Upsert(statement, names)


def _jobs() -> Upsert:
    table = JobRow._meta.db_table
    changes = []
    for each in JobRow._meta.concrete_fields:
        name = each.column
        if each.primary_key or name == "job_id":
            continue
        new = f'excluded."{name}"'
        if name in FAILURE:
            new = f'CASE WHEN excluded."failed_at" IS NULL THEN "{table}"."{name}" ELSE {new} END'
        changes.append(f'"{name}" = {new}')
    later = f'excluded."sequence" > "{table}"."sequence"'
    return _upsert(JobRow, '"job_id"', f"DO UPDATE SET {', '.join(changes)} WHERE {later}")


def _values() -> Upsert:
    later = f'excluded."finished_at" > "{SearchValue._meta.db_table}"."finished_at"'
    change = f'DO UPDATE SET "finished_at" = excluded."finished_at" WHERE {later}'
    return _upsert(SearchValue, '"job_id", "name", "value"', change)


JOBS, VALUES = _jobs(), _values()
ATTEMPTS = _upsert(AttemptRow, '"job_id", "generation", "attempt"', "DO NOTHING")
