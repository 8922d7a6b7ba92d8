"""Projection of the broker's dead lists into database rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, transaction
from django.utils import timezone

from switchyard.broker.clock import datetime_of
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.database import storable
from switchyard.dead_letters.models import DeadLetter
from switchyard.loggers import get_logger
from switchyard.payload import readable

log = get_logger(__name__)

LONGEST_HISTORY = 50
LONGEST_ERROR = 4_000
LONGEST_TRACEBACK = 32_000
# Note of a letter that something else has removed.
GONE = "the broker's dead list no longer holds it"


def project_or_log(letter: Letter) -> None:
    """Write the row of a letter that a worker has just moved to a dead list. Safe to repeat.

    Logs a database error and leaves the row to ``reconcile``: the broker holds the letter already.
    """
    try:
        project(letter)
    except DatabaseError as error:
        log.warning(
            "dead letter has no row yet; the reconciler will write it",
            message_id=letter.id, actor=letter.actor, queue=letter.queue, error=type(error).__name__,
        )  # fmt: skip


def project(letter: Letter) -> bool:
    """Create the row of a letter, or reset it to new if the message died again; return whether the row changed.

    Raises:
        DatabaseError: the row was not written.
    """
    values = columns(letter)
    with transaction.atomic():
        row, created = DeadLetter.objects.select_for_update().get_or_create(message_id=letter.id, defaults=values)
        if created:
            return True
        if row.died_at >= values["died_at"]:
            return False
        if row.deaths == 1:
            died = f"{row.exception} after {row.attempts} attempts"
            row.history = [
                {"at": row.enqueued_at.isoformat(), "act": "sent", "by": "", "note": f"to {row.queue}"},
                {"at": row.died_at.isoformat(), "act": "died", "by": "", "note": died},
                *row.history,
            ]
        if row.claim_token:
            add_history(row, action=row.claim_act, by=row.claim_by, text=row.claim_note)
            clear_claim(row)
        add_history(row, action="died again", by="", text=f"{letter.exception} after {letter.attempts} attempts")
        for name, value in values.items():
            setattr(row, name, value)
        row.deaths += 1
        row.save()
        return True


def add_history(row: DeadLetter, *, action: str, by: str, text: str = "") -> None:
    """Append an entry to a row's history without saving the row; keep the newest 50."""
    entry = {"at": timezone.now().isoformat(), "act": action, "by": by, "note": storable(text)}
    row.history = [*row.history, entry][-LONGEST_HISTORY:]


@contextmanager
def locked(row: DeadLetter) -> Iterator[DeadLetter]:
    """Provide a row as it is now, locked until the block has ended."""
    with transaction.atomic():
        yield DeadLetter.objects.select_for_update().get(pk=row.pk)


def set_state(row: DeadLetter, state: DeadLetter.State, action: str, by: str, text: str) -> None:
    """Set a row's state, end its claim and note both in its history, without saving the row."""
    row.state, row.state_at, row.state_by = state, timezone.now(), by
    clear_claim(row)
    add_history(row, action=action, by=by, text=text)


UNCLAIMED: dict[str, Any] = {"claim_token": "", "claim_act": "", "claim_by": "", "claim_note": "", "claim_at": None}


def clear_claim(row: DeadLetter) -> None:
    """Remove an operator's claim from a row without saving the row."""
    for name, value in UNCLAIMED.items():
        setattr(row, name, value)


def columns(letter: Letter) -> dict[str, Any]:
    return {
        "queue": letter.queue,
        "actor": letter.actor[:255],
        "reason": letter.reason[:32],
        "exception": storable(letter.exception)[:255],
        "error": storable(letter.error)[:LONGEST_ERROR],
        "traceback": storable(letter.traceback)[-LONGEST_TRACEBACK:],
        "attempts": max(0, letter.attempts),
        "payload": readable(letter.message),
        "fingerprint": letter.fingerprint[:64],
        "enqueued_at": datetime_of(letter.enqueued_at),
        "died_at": datetime_of(letter.died_at),
        "duration_ms": max(0, letter.duration_ms),
        "state": DeadLetter.State.NEW,
        "state_at": timezone.now(),
        "state_by": "",
    }
