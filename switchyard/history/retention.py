"""Retention of the history: jobs leave it by age and by number, oldest first, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from django.db import connection, transaction

from switchyard.broker.clock import now_ms
from switchyard.conf import switchyard_settings
from switchyard.history.models import AttemptRow, JobRow, SearchValue
from switchyard.loggers import get_logger

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

log = get_logger("switchyard.history")


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
