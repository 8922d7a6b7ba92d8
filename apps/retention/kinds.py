"""Kinds of kept data. An app names its own as ``RETENTION`` in its models; this app knows result files alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db.models import Model, Q

from switchyard.jobs.results import FOLDER


@dataclass(frozen=True, slots=True)
class RetentionKind:
    """One kind of kept data: rows with their files, or the files of a folder that no row names.

    Args:
        name: Name in the setting ``RETENTION_DAYS``.
        title: Name for people.
        content: What belongs to it, for people.
        model: Model of the rows; ``None`` for files alone.
        age: Column with the time from which their age counts.
        ended: Condition of the rows that may be removed: nothing is still to be done with them.
        size: Function that returns the bytes of the files of all rows; ``None`` for rows without files.
        files: Function that returns the names in the storage of the files of some rows.
        named: Function that returns those of some names in the storage that rows of this kind have.
        folder: Folder of the storage whose files without a row are removed at the same age; "" for none.
    """

    name: str
    title: str
    content: str
    model: type[Model] | None = None
    age: str = "created_at"
    ended: Q = field(default_factory=Q)
    size: Callable[[], int] | None = None
    files: Callable[[Sequence[Any]], Iterable[str]] | None = None
    named: Callable[[Sequence[str]], Iterable[str]] | None = None
    folder: str = ""


RESULTS = RetentionKind(
    name="results",
    title="Result files",
    content="Files of jobs' results that no row below names, and large results",
    folder=FOLDER,
)


def kinds() -> list[RetentionKind]:
    """Return the kinds of the installed apps: rows first, so that the files which they name are known to be theirs."""
    named = (getattr(config.models_module, "RETENTION", None) for config in apps.get_app_configs())
    found = [RESULTS, *(kind for kind in named if isinstance(kind, RetentionKind))]
    return sorted(found, key=lambda kind: (kind.model is None, kind.title))
