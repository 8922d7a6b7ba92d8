"""Retention of statements: rows with their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db.models import Sum

from apps.platform.retention.kinds import RetentionKind
from apps.product.reports.models import Report


def size() -> int:
    """Return the bytes of all files."""
    return Report.objects.aggregate(total=Sum("size_bytes"))["total"] or 0


def files(reports: Sequence[Report]) -> Iterable[str]:
    """Return the files of some statements."""
    return [report.file for report in reports]


def named(names: Sequence[str]) -> Iterable[str]:
    """Return those of some files that a statement has."""
    return Report.objects.filter(file__in=names).values_list("file", flat=True)


KIND = RetentionKind(
    name="reports",
    title="Reports",
    content="Statements of customers with their files, by the time at which they were last written",
    model=Report,
    age="generated_at",
    size=size,
    files=files,
    named=named,
)
