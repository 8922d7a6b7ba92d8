"""Acts on all open letters of one fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apps.platform.dead_letters import actions
from apps.platform.dead_letters.errors import BROKER_AWAY, UnknownDeadLetter, UnknownGroup
from apps.platform.dead_letters.queries import listing, open_ids

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from apps.platform.dead_letters.models import DeadLetter

MOST_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an act on several letters ended.

    Args:
        done: Letters it was done to.
        skipped: Sentences about the others.
        left: Open letters of the group that this call did not reach.
        stopped: Why it ended early, or "".
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    left: int = 0
    stopped: str = ""


def requeue_group(fingerprint: str, *, by: User | str, reason: str = "", limit: int = MOST_AT_ONCE) -> Outcome:
    """Requeue a group's open letters, oldest first, at most ``limit``.

    Raises:
        UnknownGroup: no open letter has that fingerprint.
    """
    return _group(actions.requeue, fingerprint, by, reason, limit)


def discard_group(fingerprint: str, *, by: User | str, reason: str = "", limit: int = MOST_AT_ONCE) -> Outcome:
    """Discard a group's open letters, oldest first, at most ``limit``.

    Raises:
        UnknownGroup: no open letter has that fingerprint.
    """
    return _group(actions.discard, fingerprint, by, reason, limit)


def each(
    act: Callable[..., actions.Act], letters: Iterable[DeadLetter | str], *, by: User | str, reason: str = ""
) -> Outcome:
    """Do an act to several letters. A broker that does not answer ends it; what was done stays done."""
    done: list[str] = []
    skipped: list[str] = []
    for letter in letters:
        try:
            result = act(letter, by=by, reason=reason)
        except UnknownDeadLetter as error:
            skipped.append(str(error))
        except BROKER_AWAY as error:
            return Outcome(tuple(done), tuple(skipped), stopped=f"The broker did not answer: {error}")
        else:
            if result.done:
                done.append(result.row.message_id)
            else:
                skipped.append(result.words)
    return Outcome(tuple(done), tuple(skipped))


def _group(act: Callable[..., actions.Act], fingerprint: str, by: User | str, reason: str, limit: int) -> Outcome:
    ids = open_ids(fingerprint, limit=limit)
    if not ids:
        raise UnknownGroup(fingerprint)
    result = each(act, ids, by=by, reason=reason)
    left = listing(fingerprint=fingerprint).count()
    return Outcome(result.done, result.skipped, left, result.stopped)
