"""Restoring of discarded dead letters. While a letter is discarded its row keeps it whole, for 90 days."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from switchyard.broker.interface import facilities
from switchyard.broker.queue.dead_letter_json import decode
from switchyard.dead_letters.actions import ActionResult, already_message, name_of
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import add_history
from switchyard.dead_letters.queries import find

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def restore(letter: DeadLetter | str, *, by: User | str, reason: str = "") -> ActionResult:
    """Put a discarded letter back into its dead list, from where it can be requeued.

    A crash between broker and row leaves the letter in the list; the reconciler opens its row then.

    Raises:
        NotFound: no dead letter has that id.
        BrokerUnavailable: the broker did not answer; call again.
    """
    row = find(letter)
    if row.state != DeadLetter.State.DISCARDED:
        return ActionResult(row, False, already_message(row))
    kept = decode(row.queue, row.kept.encode()) if row.kept else None
    if kept is None:
        return ActionResult(row, False, f"{row} cannot be restored: it was discarded by a release that kept no copy.")
    if not facilities().transport.restore(kept):
        return ActionResult(row, False, f"{row} cannot be restored: a message with its id is in {row.queue}.")
    with transaction.atomic():
        now = DeadLetter.objects.select_for_update().get(pk=row.pk)
        if now.state != DeadLetter.State.DISCARDED:
            return ActionResult(now, True, f"Restored {now}.")
        now.state, now.state_at, now.state_by, now.kept = DeadLetter.State.NEW, timezone.now(), name_of(by), ""
        add_history(now, action="restore", by=name_of(by), text=reason)
        now.save()
    return ActionResult(now, True, f"Restored {now}.")
