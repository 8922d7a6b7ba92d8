"""What an operator does to a dead letter: requeue, discard, acknowledge. Each is safe to repeat and to interrupt.

A move is done in three steps: the row is claimed, the broker moves the letter, the row says so. Whoever finds a claim
that is older than ``CLAIM_S`` asks the broker whether the letter is still in its list, and so knows how it ended.
The claim also decides between two operators who act at once: the second is told about the first.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import structlog
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils import timezone

from apps.platform.dead_letters.models import OPEN_STATES, DeadLetter
from apps.platform.dead_letters.projection import clear_claim, mirror, note
from apps.platform.dead_letters.queries import find
from broker.errors import BrokerUnavailable, NoSuchLetter
from broker.interface import facilities

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger(__name__)

CLAIM_S = 60
ENDS: dict[str, DeadLetter.State] = {
    "requeue": DeadLetter.State.REPLAYED,
    "discard": DeadLetter.State.DISCARDED,
}
Move = Literal["requeue", "discard"]


@dataclass(frozen=True, slots=True)
class Act:
    """How an act ended.

    Args:
        done: This call did it. ``False``: nothing was done, ``words`` say why.
        words: A sentence for the operator.
    """

    row: DeadLetter
    done: bool
    words: str


def requeue(letter: DeadLetter | str, *, by: User | str, reason: str = "") -> Act:
    """Send a dead letter back to its queue, its attempts forgotten.

    Args:
        letter: The row, or the message's id.
        by: The user, or for a command the name to put into the history.
        reason: Why, for the history.

    Raises:
        UnknownDeadLetter: there is none with that id.
        BrokerUnavailable: the broker did not answer; the row tells within a minute how it ended.
    """
    return _move(find(letter), "requeue", by, reason)


def discard(letter: DeadLetter | str, *, by: User | str, reason: str = "") -> Act:
    """Drop a dead letter for good; its row stays for 90 days. Arguments and errors as in ``requeue``."""
    return _move(find(letter), "discard", by, reason)


def acknowledge(letter: DeadLetter | str, *, by: User | str, reason: str = "") -> Act:
    """Say that somebody knows about a dead letter. It stays where it is. Arguments as in ``requeue``.

    Raises:
        UnknownDeadLetter: there is none with that id.
    """
    with transaction.atomic():
        row = DeadLetter.objects.select_for_update().get(pk=find(letter).pk)
        if row.state != DeadLetter.State.NEW:
            return Act(row, False, _already(row))
        _set_state(row, DeadLetter.State.ACKNOWLEDGED, "acknowledge", _name(by), reason)
        row.save()
        _audit(row, _user(by), "Acknowledged", reason)
    return Act(row, True, f"Acknowledged {row}.")


def settle(row: DeadLetter) -> bool:
    """Find out from the broker how an interrupted act ended, and write it down; return whether it had happened."""
    letter = facilities().transport.letter(row.queue, row.message_id)
    if letter is not None and mirror(letter):
        return True
    with transaction.atomic():
        now = DeadLetter.objects.select_for_update().get(pk=row.pk)
        if not row.claim_token or now.claim_token != row.claim_token:
            return False
        if letter is None:
            _finish(now, now.claim_act, now.claim_by, now.claim_user, f"{now.claim_note} (was interrupted)".strip())
            return True
        note(now, act=now.claim_act, by=now.claim_by, text="was interrupted before the letter moved; nothing changed")
        clear_claim(now)
        now.save()
    return False


def _move(row: DeadLetter, act: Move, by: User | str, reason: str) -> Act:
    claimed = _claim(row, act, by, reason)
    if isinstance(claimed, Act):
        return claimed
    transport = facilities().transport
    try:
        if act == "requeue":
            transport.requeue(claimed.queue, claimed.message_id)
        else:
            transport.discard(claimed.queue, claimed.message_id)
    except NoSuchLetter:
        return _gone(claimed)
    except BrokerUnavailable as error:
        if error.outcome == "refused":
            _release(claimed)
        raise
    with transaction.atomic():
        now = DeadLetter.objects.select_for_update().get(pk=claimed.pk)
        # A later death means that mirror() has seen the requeued copy fail, and has written our act down.
        if now.died_at == claimed.died_at and now.state != ENDS[act]:
            _finish(now, act, _name(by), _user(by), reason)
    log.info("dead letter moved", act=act, by=_name(by), message_id=row.message_id, actor=row.actor, queue=row.queue)
    words = f"Requeued {now} to {now.queue}." if act == "requeue" else f"Discarded {now}."
    return Act(now, True, words)


def _claim(row: DeadLetter, act: Move, by: User | str, reason: str) -> DeadLetter | Act:
    if row.claim_at is not None and row.claim_at < timezone.now() - timedelta(seconds=CLAIM_S):
        settle(row)
    with transaction.atomic():
        now = DeadLetter.objects.select_for_update().get(pk=row.pk)
        if now.claim_token:
            return Act(now, False, f"{now.claim_by} has begun to {now.claim_act} {now}; look again in a minute.")
        if now.state not in OPEN_STATES:
            return Act(now, False, _already(now))
        now.claim_token = uuid.uuid4().hex
        now.claim_act, now.claim_by, now.claim_note = act, _name(by), reason[:500]
        now.claim_at, now.claim_user = timezone.now(), _user(by)
        now.save()
    return now


def _release(claimed: DeadLetter) -> None:
    with transaction.atomic():
        now = DeadLetter.objects.select_for_update().get(pk=claimed.pk)
        if now.claim_token == claimed.claim_token:
            clear_claim(now)
            now.save()


def _gone(claimed: DeadLetter) -> Act:
    with transaction.atomic():
        now = DeadLetter.objects.select_for_update().get(pk=claimed.pk)
        if now.died_at == claimed.died_at and now.state in OPEN_STATES:
            _set_state(now, DeadLetter.State.MISSING, "missing", "", "the broker's dead list no longer holds it")
            now.save()
    return Act(now, False, f"{now} is no longer in {now.queue}-dead: something else has taken it out.")


def _finish(row: DeadLetter, act: str, by: str, user: User | None, reason: str) -> None:
    state = ENDS[act]
    _set_state(row, state, act, by, reason)
    row.save()
    _audit(row, user, state.label, reason)


def _set_state(row: DeadLetter, state: DeadLetter.State, act: str, by: str, reason: str) -> None:
    row.state, row.state_at, row.state_by = state, timezone.now(), by
    clear_claim(row)
    note(row, act=act, by=by, text=reason)


def _audit(row: DeadLetter, user: User | None, act: str, reason: str) -> None:
    if user is None:
        return
    LogEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(DeadLetter),
        object_id=str(row.pk),
        object_repr=str(row)[:200],
        action_flag=CHANGE,
        change_message=f"{act}: {reason}" if reason else act,
    )


def _already(row: DeadLetter) -> str:
    by = f" by {row.state_by}" if row.state_by else ""
    label = DeadLetter.State(row.state).label.lower()
    return f"{row} is {label} already, since {row.state_at:%Y-%m-%d %H:%M:%S} UTC{by}."


def _name(by: User | str) -> str:
    return by[:150] if isinstance(by, str) else by.get_username()[:150]


def _user(by: User | str) -> User | None:
    return None if isinstance(by, str) else by
