"""Operator actions on several dead letters at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from switchyard.broker.errors import BrokerError, NotFound
from switchyard.dead_letters.actions import ActionResult
from switchyard.dead_letters.queries import listing, open_ids

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from switchyard.dead_letters.models import DeadLetter

MOST_AT_ONCE = 1_000
Action = Callable[..., ActionResult]


@dataclass(frozen=True, slots=True)
class BulkResult:
    """Result of an action on several letters.

    Args:
        done: Message ids the action was applied to.
        skipped: One sentence for each of the others.
        left: Open letters of the group that this call did not reach.
        stopped: Why the call ended early, or "".
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    left: int = 0
    stopped: str = ""


def apply_to_each(
    action: Action, letters: Iterable[DeadLetter | str], *, by: User | str, reason: str = ""
) -> BulkResult:
    """Apply an action to letters one by one. Stops at the first broker error; earlier actions stand."""
    done: list[str] = []
    skipped: list[str] = []
    for letter in letters:
        try:
            result = action(letter, by=by, reason=reason)
        except NotFound as error:
            skipped.append(str(error))
        except BrokerError as error:
            return BulkResult(tuple(done), tuple(skipped), stopped=f"The broker did not answer: {error}")
        else:
            if result.done:
                done.append(result.row.message_id)
            else:
                skipped.append(result.message)
    return BulkResult(tuple(done), tuple(skipped))


def apply_to_group(
    action: Action, fingerprint: str, *, by: User | str, reason: str = "", limit: int = MOST_AT_ONCE
) -> BulkResult:
    """Apply an action to a group's open letters, oldest first, at most ``limit``.

    Raises:
        NotFound: no open letter has that fingerprint.
    """
    ids = open_ids(fingerprint, limit=limit)
    if not ids:
        raise NotFound(
            f"group {fingerprint!r}: no open dead letter has this fingerprint; "
            "see `manage.py switchyard deadletters list` for the open groups"
        )
    result = apply_to_each(action, ids, by=by, reason=reason)
    left = listing(fingerprint=fingerprint).count()
    return BulkResult(result.done, result.skipped, left, result.stopped)
