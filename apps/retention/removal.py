"""Removal of rows and files, each step safe to repeat.

A row leaves in the transaction that writes down the names of its files; then the files leave, then their names. A kill
between two steps leaves names of files that are still to be removed, and the next step removes them. So no row is left
without its file, and no file without a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from django.core.files.storage import storages
from django.db import transaction
from django.db.models import F, Model

from apps.retention.kinds import RetentionKind
from apps.retention.listing import remove_file
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
