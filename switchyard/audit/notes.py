"""Notes of people for the next shift, on an alert, a queue or the overview: rows of the audit log."""

from __future__ import annotations

from typing import Final

from django.db import DatabaseError

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act
from switchyard.broker.errors import ActRefused
from switchyard.database import storable
from switchyard.middleware.logs import printable

LONGEST: Final = 500
SHOWN: Final = 10


def write_note(kind: str, target: str, text: str, *, who: Who) -> None:
    """Write a note.

    Args:
        kind: ``alert``, ``queue`` or ``room``.
        text: Cut after 500 characters.

    Raises:
        ActRefused: it is empty.
        django.db.DatabaseError: the audit log cannot be written; nothing was noted.
    """
    note = storable(text).strip()[:LONGEST]
    if not note:
        raise ActRefused("note", "it is empty; write at most 500 characters", by_argument=True)
    with act(f"{kind}.note", who=who, target=target, reason=note):
        pass  # the row is the note


def note_line(note: AuditEntry) -> str:
    return printable(f"{'note':16} {note.at:%Y-%m-%d %H:%M} UTC, {note.who}: {note.reason}")


def notes_on(kind: str, target: str) -> list[AuditEntry]:
    """Return the newest notes, at most ten, the newest first; none while the database does not answer."""
    try:
        rows = AuditEntry.objects.filter(act=f"{kind}.note", target=target, outcome=AuditEntry.Outcome.DONE)
        return list(rows.order_by("-id")[:SHOWN])
    except DatabaseError:
        return []
