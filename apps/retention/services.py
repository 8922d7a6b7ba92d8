"""A run of the retention: for each kind the rows that are too old, then its files without a row, then its figures."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.conf import settings
from django.core.files.storage import storages
from django.db import transaction
from django.db.models import Count, F, Min
from django.utils import timezone

from apps.retention import removal
from apps.retention.kinds import RetentionKind, kinds, named_by_rows
from apps.retention.listing import FileEntry, files_below
from apps.retention.models import KindState

# Names of one request to a bucket, and of one question to the database.
PAGE: Final = 1_000

log = structlog.get_logger(__name__)


def work(run: int, *, for_s: float, clock: Callable[[], float] = time.monotonic) -> bool:
    """Do the next steps of a run; return whether it has ended. Safe to repeat after a kill.

    Args:
        run: Number of the run; a later one takes over.
        for_s: Seconds after which to return between two steps.

    Raises:
        OSError: the storage failed for a kind; the other kinds are done, and its state has the error.
    """
    until_s = clock() + for_s
    failed: OSError | None = None

    def is_over() -> bool:
        return clock() >= until_s

    try:
        for kind in kinds():
            state = removal.begin(kind, run=run)
            try:
                if not state.done and not _work_on(kind, state, run, is_over):
                    return False
            except OSError as error:
                log.warning("retention stopped", kind=kind.name, error=str(error))
                removal.note(kind, run=run, done=True, error=(str(error) or type(error).__name__)[:300])
                failed = error
    except removal.LaterRun:
        log.info("retention ended: a later run has begun", run=run)
        return True
    if failed is not None:
        raise failed
    return True


def _work_on(kind: RetentionKind, state: KindState, run: int, is_over: Callable[[], bool]) -> bool:
    """Bring a kind to its end; return ``False`` when the time is over before."""
    days = settings.RETENTION_DAYS.get(kind.name, 0)
    before = timezone.now() - timedelta(days=days) if days else None
    # Left by a run that was killed. A kind without files waits for no storage.
    while (kind.files is not None or kind.folder) and removal.remove_files():
        if is_over():
            return False
    if kind.model is not None and before is not None:
        while removal.remove_rows(kind, kind.model, before, run=run):
            if kind.files is not None:
                removal.remove_files()
            if is_over():
                return False
    # Files of rows that are kept for good are no question: only results are counted by their files.
    if kind.folder and (before is not None or kind.model is None) and not _walk(kind, state, before, run, is_over):
        return False
    _finish(kind, run)
    return True


def _walk(
    kind: RetentionKind, state: KindState, before: datetime | None, run: int, is_over: Callable[[], bool]
) -> bool:
    """Look at each file of a kind's folder: count those that no row names, remove those from before a time."""
    found = files_below(storages["default"], kind.folder, after=state.cursor)
    while page := list(itertools.islice(found, PAGE)):
        named = named_by_rows([file.name for file in page])
        unnamed = [file for file in page if file.name not in named]
        old = [file for file in unnamed if before is not None and file.modified_at < before]
        kept = [file for file in unnamed if before is None or file.modified_at >= before]
        state.walked = _with(state.walked, kept)
        with transaction.atomic():
            removal.write_down(file.name for file in old)
            removal.note(
                kind, run=run, at=state.cursor, cursor=page[-1].name, walked=state.walked,
                removed=F("removed") + len(old),
            )  # fmt: skip
        state.cursor = page[-1].name
        while removal.remove_files():
            pass
        if is_over():
            return False
    return True


def _with(walked: dict[str, Any], files: Sequence[FileEntry]) -> dict[str, Any]:
    times = [file.modified_at.isoformat() for file in files] + ([walked["oldest"]] if walked.get("oldest") else [])
    return {
        "count": walked.get("count", 0) + len(files),
        "size_bytes": walked.get("size_bytes", 0) + sum(file.size_bytes for file in files),
        "oldest": min(times, default=None),
    }


def _finish(kind: RetentionKind, run: int) -> None:
    if kind.model is not None:
        found = kind.model._default_manager.aggregate(count=Count("pk"), oldest_at=Min(kind.age))
        values = {**found, "size_bytes": None if kind.size is None else kind.size()}
    else:
        walked = KindState.objects.get(name=kind.name).walked
        oldest = walked.get("oldest")
        values = {
            "count": walked.get("count", 0),
            "size_bytes": walked.get("size_bytes", 0),
            "oldest_at": datetime.fromisoformat(oldest) if oldest else None,
        }
    removal.note(kind, run=run, done=True, error="", ended_at=timezone.now(), **values)
