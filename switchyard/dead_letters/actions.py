"""Operator actions on one dead letter: requeue, discard, acknowledge. Each is safe to repeat and to interrupt.

A move takes three steps: claim the row, move the letter in the broker, record the result in the row. A claim older
than ``CLAIM_S`` belongs to an interrupted move: ``settle_claim`` asks the broker whether its list still holds the
letter. When two operators act at once, the claim lets one move the letter and refuses the other by name.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.db import transaction

from switchyard.broker import clock
from switchyard.broker.errors import BrokerError, NotFound, QueueFull
from switchyard.broker.interface import Arguments, facilities
from switchyard.broker.queue.dead_moves import decode_letter, encode_letter
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.database import storable
from switchyard.dead_letters.models import BULK_CLAIM, OPEN_STATES, DeadLetter
from switchyard.dead_letters.projection import GONE, add_history, clear_claim, locked, project, set_state
from switchyard.dead_letters.queries import find
from switchyard.loggers import get_logger

log = get_logger(__name__)

CLAIM_S = 60
LONGEST_NOTE = 500
FINAL_STATES: dict[str, DeadLetter.State] = {
    "requeue": DeadLetter.State.REQUEUED,
    "discard": DeadLetter.State.DISCARDED,
}
MoveAction = Literal["requeue", "discard"]


@dataclass(frozen=True, slots=True)
class ActionResult:
    """Result of an action on one letter.

    Args:
        done: Whether this call changed the letter.
        message: Sentence for the operator: the action done, or the reason why none was.
    """

    row: DeadLetter
    done: bool
    message: str


def requeue(letter: DeadLetter | str, *, by: str, reason: str = "", arguments: Arguments | None = None) -> ActionResult:
    """Send a dead letter back to its queue with zero attempts.

    Args:
        letter: The row, or the message's id.
        by: Name for the history.
        reason: Why, for the history.
        arguments: In place of the message's own; validated by ``editing.parse``.

    Raises:
        NotFound: no dead letter has that id.
        BrokerUnavailable: the broker did not answer; the row shows the result within a minute.
    """
    return _move(find(letter), "requeue", by, reason, arguments)


def discard(letter: DeadLetter | str, *, by: str, reason: str = "") -> ActionResult:
    """Delete a dead letter from the broker; its row stays for 90 days. Arguments and errors as in ``requeue``."""
    return _move(find(letter), "discard", by, reason)


def acknowledge(letter: DeadLetter | str, *, by: str, reason: str = "") -> ActionResult:
    """Mark a dead letter as known without moving it. Arguments as in ``requeue``.

    Raises:
        NotFound: no dead letter has that id.
    """
    with locked(find(letter)) as row:
        if row.state != DeadLetter.State.NEW:
            return ActionResult(row, False, already_message(row))
        set_state(row, DeadLetter.State.ACKNOWLEDGED, "acknowledge", by, reason)
        row.save()
    return ActionResult(row, True, f"Acknowledged {row}.")


def note(letter: DeadLetter | str, *, by: str, text: str) -> ActionResult:
    """Append a note to a letter's history. Arguments as in ``requeue``.

    Args:
        text: Cut after 500 characters.

    Raises:
        NotFound: no dead letter has that id.
    """
    with locked(find(letter)) as row:
        if not text.strip():
            return ActionResult(row, False, "The note is empty; nothing was written.")
        add_history(row, action="note", by=by, text=text.strip()[:LONGEST_NOTE])
        row.save(update_fields=("history",))
    return ActionResult(row, True, f"Noted on {row}.")


def keep(letters: Sequence[Letter]) -> None:
    """Write whole letters into their rows, before the broker drops them, so that they can be restored."""
    with transaction.atomic():
        for letter in letters:
            DeadLetter.objects.filter(message_id=letter.id).update(kept=encode_letter(letter))


def settle_claim(row: DeadLetter) -> bool:
    """Ask the broker whether an interrupted action moved the letter, and record the answer; return whether it did."""
    letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
    if letter is not None and project(letter):
        return True
    with locked(row) as now:
        if not row.claim_token or now.claim_token != row.claim_token:
            return False
        if letter is None:
            _finish(now, now.claim_act, now.claim_by, f"{now.claim_note} (was interrupted)".strip())
            return True
        text = "was interrupted before the letter moved; nothing changed"
        add_history(now, action=now.claim_act, by=now.claim_by, text=text)
        clear_claim(now)
        now.save()
    return False


def _move(
    row: DeadLetter, action: MoveAction, by: str, reason: str, arguments: Arguments | None = None
) -> ActionResult:
    claimed = _claim(row, action, by, reason)
    if isinstance(claimed, ActionResult):
        return claimed
    transport = facilities().transport
    try:
        if action == "requeue":
            transport.requeue(claimed.queue, claimed.message_id, arguments=arguments)
        else:
            letter = transport.find_dead_letter(claimed.queue, claimed.message_id)
            keep([letter] if letter is not None else [])
            transport.discard(claimed.queue, claimed.message_id)
    except NotFound:
        return _gone(claimed)
    except QueueFull as error:
        _release(claimed)
        return ActionResult(claimed, False, f"{claimed} stays dead: {error}")
    except BrokerError as error:
        if error.outcome == "refused":
            _release(claimed)
        raise
    with locked(claimed) as now:
        # After a later death project() has recorded this action already.
        if now.died_at == claimed.died_at and now.state != FINAL_STATES[action]:
            _finish(now, action, by, reason)
    log.info("dead letter moved", act=action, by=by, message_id=row.message_id, actor=row.actor, queue=row.queue)
    message = f"Requeued {now} to {now.queue}." if action == "requeue" else f"Discarded {now}."
    return ActionResult(now, True, message)


def _claim(row: DeadLetter, action: MoveAction, by: str, reason: str) -> DeadLetter | ActionResult:
    stale = row.claim_at is not None and row.claim_at < clock.utc_now() - timedelta(seconds=CLAIM_S)
    if stale and not row.claim_token.startswith(BULK_CLAIM):
        settle_claim(row)
    with locked(row) as now:
        if now.claim_token:
            text = f"{now.claim_by} has begun to {now.claim_act} {now}; look again in a minute."
            return ActionResult(now, False, text)
        if now.state not in OPEN_STATES:
            return ActionResult(now, False, already_message(now))
        now.claim_token = uuid.uuid4().hex
        now.claim_act, now.claim_by, now.claim_note = action, by, storable(reason)[:500]
        now.claim_at = clock.utc_now()
        now.save()
    return now


def _release(claimed: DeadLetter) -> None:
    with locked(claimed) as now:
        if now.claim_token == claimed.claim_token:
            clear_claim(now)
            now.save()


def _gone(claimed: DeadLetter) -> ActionResult:
    with locked(claimed) as now:
        if now.died_at == claimed.died_at and now.state in OPEN_STATES:
            set_state(now, DeadLetter.State.MISSING, "missing", "", GONE)
            now.save()
    return ActionResult(now, False, f"{now} is no longer in {now.queue}-dead: something else has removed it.")


def _finish(row: DeadLetter, action: str, by: str, reason: str) -> None:
    set_state(row, FINAL_STATES[action], action, by, reason)
    row.save()


def already_message(row: DeadLetter) -> str:
    """Return the sentence that a letter has been triaged."""
    by = f" by {row.state_by}" if row.state_by else ""
    label = DeadLetter.State(row.state).label.lower()
    return f"{row} is {label} already, since {row.state_at:%Y-%m-%d %H:%M:%S} UTC{by}."


def restore(letter: DeadLetter | str, *, by: str, reason: str = "") -> ActionResult:
    """Put a discarded letter back into its dead list, from where it can be requeued.

    A crash between broker and row leaves the letter in the list; the reconciler opens its row then.

    Raises:
        NotFound: no dead letter has that id.
        BrokerUnavailable: the broker did not answer; call again.
    """
    row = find(letter)
    if row.state != DeadLetter.State.DISCARDED:
        return ActionResult(row, False, already_message(row))
    kept = decode_letter(row.queue, row.kept.encode()) if row.kept else None
    if kept is None:
        return ActionResult(row, False, f"{row} cannot be restored: it was discarded by a release that kept no copy.")
    if not facilities().transport.restore(kept):
        return ActionResult(row, False, f"{row} cannot be restored: a message with its id is in {row.queue}.")
    with locked(row) as now:
        if now.state != DeadLetter.State.DISCARDED:
            return ActionResult(now, True, f"Restored {now}.")
        now.kept = ""
        set_state(now, DeadLetter.State.NEW, "restore", by, reason)
        now.save()
    return ActionResult(now, True, f"Restored {now}.")
