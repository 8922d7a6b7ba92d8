"""Results in the database: one row a job, until it expires."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from django.db import close_old_connections

from switchyard.broker import clock

EVERY_S: Final = 60.0
BATCH: Final = 500


class DatabaseResults:
    """Result store in the table ``StoredResult``. Each process removes a batch of expired rows once a minute."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        """Write the row of a job."""
        from switchyard.jobs.models import StoredResult  # models are not loaded yet when the broker is built

        close_old_connections()
        try:
            expires_at = clock.utc_now() + timedelta(milliseconds=keep_ms)
            StoredResult.objects.update_or_create(job_id=job_id, defaults={"text": text, "expires_at": expires_at})
            self._remove_expired()
        finally:
            close_old_connections()
        return ""

    def get(self, job_id: str, place: str) -> str | None:
        """Return the text of a job's result, or ``None``."""
        from switchyard.jobs.models import StoredResult

        close_old_connections()
        try:
            found = StoredResult.objects.filter(job_id=job_id, expires_at__gt=clock.utc_now())
            text: str | None = found.values_list("text", flat=True).first()
            return text
        finally:
            close_old_connections()

    def _remove_expired(self) -> None:
        from switchyard.jobs.models import StoredResult

        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + EVERY_S
        expired = StoredResult.objects.filter(expires_at__lte=clock.utc_now()).values_list("pk", flat=True)
        StoredResult.objects.filter(pk__in=list(expired[:BATCH])).delete()
