"""A run of the retention: for each kind the rows that are too old, then its files without a row, then its figures.

A row leaves in the transaction that writes down the names of its files; then the files leave, then their names. A kill
between two steps leaves names of files that are still to be removed, and the next step removes them. So no row is left
without its file, and no file without a name.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.conf import settings
from django.core.files.storage import storages
from django.db import transaction
from django.db.models import Count, F, Min, Model
from django.utils import timezone

from apps.retention.kinds import RetentionKind, kinds
from apps.retention.listing import FileEntry, files_below, remove_file
from apps.retention.models import FileRemoval, KindState

# A batch holds SQLite's only write lock for tens of milliseconds.
BATCH: Final = 200


class LaterRun(Exception):
    """A later run has begun, or another process does the same step: this one ends."""


def remove_rows(kind: RetentionKind, model: type[Model], before: datetime, *, run: int) -> int:
    """Remove a batch of the oldest rows from before a time, and write down their files; return how many.

    Raises:
        LaterRun: a later run has begun.
    """
    with transaction.atomic():
        old = model._default_manager.filter(kind.ended, **{f"{kind.age}__lt": before}).order_by(kind.age, "pk")
        # A row that another process writes is left to the next run.
        rows = list(old.select_for_update(skip_locked=True)[:BATCH])
        if rows:
            if kind.files is not None:
                write_down(kind.files(rows))
            model._default_manager.filter(pk__in=[row.pk for row in rows]).delete()
            note(kind, run=run, removed=F("removed") + len(rows))
    return len(rows)


def write_down(names: Iterable[str]) -> None:
    """Write down files to remove; a name that stands there already is left alone."""
    FileRemoval.objects.bulk_create((FileRemoval(name=name) for name in names if name), ignore_conflicts=True)


def remove_files() -> int:
    """Remove a batch of the files that are written down; return how many.

    Raises:
        OSError: the storage did not answer, or the disk refused; what is left stays written down.
    """
    found = list(FileRemoval.objects.order_by("pk")[:BATCH])
    gone: list[int] = []
    try:
        for removal in found:
            remove_file(storages["default"], removal.name)
            gone.append(removal.pk)
    finally:
        FileRemoval.objects.filter(pk__in=gone).delete()
    return len(found)


def note(kind: RetentionKind, *, run: int, at: str | None = None, **values: Any) -> None:
    """Write values into the state of a kind.

    Args:
        at: Cursor that the state must have: no other process has done the same step.

    Raises:
        LaterRun: a later run has begun, or the cursor is another one.
    """
    state = KindState.objects.filter(name=kind.name, run=run)
    if not (state if at is None else state.filter(cursor=at)).update(**values):
        raise LaterRun


def begin(kind: RetentionKind, *, run: int) -> KindState:
    """Return the state of a kind in a run; the first call of a run resets it.

    Raises:
        LaterRun: a later run has begun.
    """
    KindState.objects.get_or_create(name=kind.name)
    fresh = {"run": run, "done": False, "cursor": "", "walked": {}, "removed": 0}
    KindState.objects.filter(name=kind.name, run__lt=run).update(**fresh)
    state = KindState.objects.get(name=kind.name)
    if state.run != run:
        raise LaterRun
    return state


# Names of one request to a bucket, and of one question to the database.
PAGE: Final = 1_000

log = structlog.get_logger(__name__)


def work(run: int, *, for_s: float) -> bool:
    """Do the next steps of a run; return whether it has ended. Safe to repeat after a kill.

    Args:
        run: Number of the run; a later one takes over.
        for_s: Seconds after which to return between two steps.

    Raises:
        OSError: the storage failed for a kind; the other kinds are done, and its state has the error.
    """
    until_s = time.monotonic() + for_s
    failed: OSError | None = None
    try:
        for kind in kinds():
            state = begin(kind, run=run)
            try:
                if not state.done and not _work_on(kind, state, run, until_s):
                    return False
            except OSError as error:
                log.warning("retention stopped", kind=kind.name, error=str(error))
                note(kind, run=run, done=True, error=(str(error) or type(error).__name__)[:300])
                failed = error
    except LaterRun:
        log.info("retention ended: a later run has begun", run=run)
        return True
    if failed is not None:
        raise failed
    return True


def _work_on(kind: RetentionKind, state: KindState, run: int, until_s: float) -> bool:
    """Bring a kind to its end; return ``False`` when the time is over before, by the monotonic clock."""
    days = settings.RETENTION_DAYS.get(kind.name, 0)
    before = timezone.now() - timedelta(days=days) if days else None
    # Left by a run that was killed. A kind without files waits for no storage.
    while (kind.files is not None or kind.folder) and remove_files():
        if time.monotonic() >= until_s:
            return False
    if kind.model is not None and before is not None:
        while remove_rows(kind, kind.model, before, run=run):
            if kind.files is not None:
                remove_files()
            if time.monotonic() >= until_s:
                return False
    # Files of rows that are kept for good are no question: only results are counted by their files.
    if kind.folder and (before is not None or kind.model is None) and not _walk(kind, state, before, run, until_s):
        return False
    _finish(kind, run)
    return True


def _walk(kind: RetentionKind, state: KindState, before: datetime | None, run: int, until_s: float) -> bool:
    """Look at each file of a kind's folder: count those that no row names, remove those from before a time."""
    found = files_below(storages["default"], kind.folder, after=state.cursor)
    while page := list(itertools.islice(found, PAGE)):
        names = [file.name for file in page]
        named = {name for other in kinds() if other.named is not None for name in other.named(names)}
        unnamed = [file for file in page if file.name not in named]
        old = [file for file in unnamed if before is not None and file.modified_at < before]
        kept = [file for file in unnamed if before is None or file.modified_at >= before]
        state.walked = _with(state.walked, kept)
        with transaction.atomic():
            write_down(file.name for file in old)
            note(
                kind, run=run, at=state.cursor, cursor=page[-1].name, walked=state.walked,
                removed=F("removed") + len(old),
            )  # fmt: skip
        state.cursor = page[-1].name
        while remove_files():
            pass
        if time.monotonic() >= until_s:
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
    note(kind, run=run, done=True, error="", ended_at=timezone.now(), **values)
