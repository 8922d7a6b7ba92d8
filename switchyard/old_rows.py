"""Deletion of rows that are too old, a bounded number at a time."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

AT_ONCE, MOST_BATCHES = 1_000, 100


def delete_old(rows: QuerySet[Any]) -> int:
    """Delete rows in their order, 1,000 a statement and at most 100,000; return the count."""
    deleted = 0
    for _ in range(MOST_BATCHES):
        keys = list(rows.values_list("pk", flat=True)[:AT_ONCE])
        deleted += rows.model._base_manager.using(rows.db).filter(pk__in=keys).delete()[0]
        if len(keys) < AT_ONCE:
            break
    return deleted
