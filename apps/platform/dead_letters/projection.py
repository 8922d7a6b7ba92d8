"""Writes what happens in the broker's dead lists into rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db import DatabaseError, transaction
from django.utils import timezone

from apps.platform.dead_letters.models import DeadLetter
from apps.platform.dead_letters.payload import clean_text, readable
from broker.shapes import DeadLetter as Letter

log = structlog.get_logger(__name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_HISTORY = 50
LONGEST_ERROR = 4_000
LONGEST_TRACEBACK = 32_000


def record(letter: Letter) -> None:
    """Mirror a letter that a worker has just put into a dead list.

    Safe to repeat. A letter that died again after a requeue becomes new again. A database that does not answer is
    logged and left to ``reconcile``: the letter itself is in the broker already.
    """
    try:
        mirror(letter)
    except DatabaseError as error:
        log.warning(
            "dead letter not mirrored; the reconciler will do it",
            message_id=letter.id, actor=letter.actor, queue=letter.queue, error=type(error).__name__,
        )  # fmt: skip


def mirror(letter: Letter) -> bool:
    """Make the row of a letter, or make it new again; return whether anything changed.

    Raises:
        DatabaseError: the database did not take it.
    """
    values = row_values(letter)
    with transaction.atomic():
        row, created = DeadLetter.objects.select_for_update().get_or_create(message_id=letter.id, defaults=values)
        if created:
            return True
        if row.died_at >= values["died_at"]:
            return False
        if row.deaths == 1:
            row.history = [*_first_life(row), *row.history]
        if row.claim_token:
            note(row, act=row.claim_act, by=row.claim_by, text=row.claim_note)
            clear_claim(row)
        note(row, act="died again", by="", text=f"{letter.exception} after {letter.attempts} attempts")
        for name, value in values.items():
            setattr(row, name, value)
        row.deaths += 1
        row.save()
        return True


def row_values(letter: Letter) -> dict[str, Any]:
    """Return the columns of a letter's row, but for its id, history and claim."""
    return {
        "queue": letter.queue,
        "actor": letter.actor[:255],
        "reason": letter.reason[:32],
        "exception": clean_text(letter.exception)[:255],
        "error": clean_text(letter.error)[:LONGEST_ERROR],
        "traceback": clean_text(letter.traceback)[-LONGEST_TRACEBACK:],
        "attempts": max(0, letter.attempts),
        "payload": readable(letter.message),
        "fingerprint": letter.fingerprint[:64],
        "enqueued_at": moment(letter.enqueued_at),
        "died_at": moment(letter.died_at),
        "duration_ms": max(0, letter.duration_ms),
        "state": DeadLetter.State.NEW,
        "state_at": timezone.now(),
        "state_by": "",
    }


def _first_life(row: DeadLetter) -> list[dict[str, str]]:
    died = f"{row.exception} after {row.attempts} attempts"
    return [
        {"at": row.enqueued_at.isoformat(), "act": "sent", "by": "", "note": f"to {row.queue}"},
        {"at": row.died_at.isoformat(), "act": "died", "by": "", "note": died},
    ]


def moment(at_ms: int) -> datetime:
    """Return the time that is ``at_ms`` milliseconds after the epoch, exactly."""
    return EPOCH + timedelta(milliseconds=at_ms)


def note(row: DeadLetter, *, act: str, by: str, text: str = "") -> None:
    """Add an entry to a row's history, without saving it. The oldest entries give way to the newest fifty."""
    entry = {"at": timezone.now().isoformat(), "act": act, "by": by, "note": text}
    row.history = [*row.history, entry][-LONGEST_HISTORY:]


def clear_claim(row: DeadLetter) -> None:
    """Forget the act that was begun on a row, without saving it."""
    row.claim_token = row.claim_act = row.claim_by = row.claim_note = ""
    row.claim_at = None
    row.claim_user = None
