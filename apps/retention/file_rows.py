"""Kinds of kept data whose rows have one file each, in the columns ``file`` and ``size_bytes``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Model, Sum

from apps.retention.kinds import RetentionKind


def kind_of_file_rows(model: type[Model], *, name: str, title: str, content: str, age: str) -> RetentionKind:
    """Return the kind of a model's rows with their files; see :class:`RetentionKind` for its arguments."""
    rows = model._default_manager

    def size() -> int:
        return rows.aggregate(total=Sum("size_bytes"))["total"] or 0

    def files(some: Sequence[Any]) -> Iterable[str]:
        return [row.file for row in some]

    def named(names: Sequence[str]) -> Iterable[str]:
        return rows.filter(file__in=names).values_list("file", flat=True)

    return RetentionKind(name, title, content, model=model, age=age, size=size, files=files, named=named)
