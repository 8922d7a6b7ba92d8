"""Retention of exports: rows with their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db.models import Sum

from apps.platform.retention.kinds import RetentionKind
from apps.product.exports.models import Export


def size() -> int:
    """Return the bytes of all files."""
    return Export.objects.aggregate(total=Sum("size_bytes"))["total"] or 0


def files(exports: Sequence[Export]) -> Iterable[str]:
    """Return the files of some exports."""
    return [export.file for export in exports]


def named(names: Sequence[str]) -> Iterable[str]:
    """Return those of some files that an export has."""
    return Export.objects.filter(file__in=names).values_list("file", flat=True)


KIND = RetentionKind(
    name="exports",
    title="Exports",
    content="Exported files",
    model=Export,
    size=size,
    files=files,
    named=named,
)
