"""What the rest of the project may do with dead letters."""

from __future__ import annotations

from apps.platform.dead_letters.actions import Act, acknowledge, discard, requeue
from apps.platform.dead_letters.groups import MOST_AT_ONCE, Outcome, discard_group, each, requeue_group
from apps.platform.dead_letters.projection import record
from apps.platform.dead_letters.reconcile import Report, reconcile_all

__all__ = [
    "MOST_AT_ONCE",
    "Act",
    "Outcome",
    "Report",
    "acknowledge",
    "discard",
    "discard_group",
    "each",
    "reconcile_all",
    "record",
    "requeue",
    "requeue_group",
]
