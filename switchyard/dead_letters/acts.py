"""Operator actions on letters and quarantined messages, each call with its row in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from switchyard.audit.services import Who, act
from switchyard.broker.errors import ActRefused, BrokerError, NotFound, not_quarantined
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.dead_letters import actions
from switchyard.dead_letters.actions import ActionResult
from switchyard.dead_letters.editing import EditedArguments
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.queries import listing, open_ids

ACTIONS: dict[str, Callable[..., ActionResult]] = {
    "acknowledge": actions.acknowledge,
    "requeue": actions.requeue,
    "discard": actions.discard,
    "restore": actions.restore,
}
MOST_AT_ONCE = 1_000
# More ids make the row of an act larger than the page that shows it.
MOST_IDS = 100


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


def apply(name: str, letters: Sequence[DeadLetter | str], *, who: Who, reason: str = "", group: str = "") -> BulkResult:
    """Apply an action to letters one by one. Stops at the first broker error; earlier actions stand.

    Args:
        name: One of ``ACTIONS``.
        letters: Rows, or ids of messages.
        group: Fingerprint that all of them have, for the audit log; "" where they were chosen one by one.
    """
    by_id = {letter if isinstance(letter, str) else letter.message_id: letter for letter in letters}

    def move(message_id: str) -> str:
        result = ACTIONS[name](by_id[message_id], by=who.signature, reason=reason)
        return "" if result.done else result.message

    return _move_each(f"letter.{name}", list(by_id), move, who=who, reason=reason, group=group)


def apply_to_group(
    name: Literal["requeue", "discard"], fingerprint: str, *, who: Who, reason: str = "", limit: int = MOST_AT_ONCE
) -> BulkResult:
    """Requeue or discard a group's open letters, oldest first, at most ``limit``.

    Raises:
        NotFound: no open letter has that fingerprint.
    """
    result = apply(name, open_ids(fingerprint, limit=limit), who=who, reason=reason, group=fingerprint)
    return replace(result, left=listing(fingerprint=fingerprint).count())


def move_quarantined(
    name: Literal["requeue", "discard"], ids: Sequence[str], *, who: Who, reason: str = ""
) -> BulkResult:
    """Requeue or discard quarantined messages one by one. Stops at the first broker error; earlier actions stand."""
    transport = facilities().transport
    move_from = transport.requeue_quarantined if name == "requeue" else transport.discard_quarantined
    queues = [queue.name for queue in declared_yard().queues]

    def move(message_id: str) -> str:
        for queue in queues:
            try:
                move_from(queue, message_id)
                return ""
            except NotFound:
                continue
        raise not_quarantined(", ".join(queues), message_id)

    return _move_each(f"quarantine.{name}", ids, move, who=who, reason=reason)


def note(letter: DeadLetter | str, *, who: Who, text: str) -> ActionResult:
    """Append a note to a letter's history, see ``actions.note``."""
    target = letter if isinstance(letter, str) else letter.message_id
    with act("letter.note", who=who, target=target, reason=text) as entry:
        result = actions.note(letter, by=who.signature, text=text)
        entry.count = int(result.done)
    return result


def edit_and_requeue(row: DeadLetter, edited: EditedArguments, *, who: Who, reason: str = "") -> ActionResult:
    """Requeue a letter with other arguments; the audit log names each change, without secrets."""
    detail = {"changed": edited.changes, "actor": row.actor}
    with act("letter.edit", who=who, target=row.message_id, reason=reason, detail=detail) as entry:
        text = f"{reason} (changed: {', '.join(edited.changes) or 'nothing'})".strip()
        result = actions.requeue(row, by=who.signature, reason=text, arguments=edited.arguments)
        entry.count = int(result.done)
    return result


def _move_each(
    name: str, ids: Sequence[str], move: Callable[[str], str], *, who: Who, reason: str, group: str = ""
) -> BulkResult:
    """Move messages within one act; ``move`` returns why it did not, or ""."""
    done: list[str] = []
    skipped: list[str] = []
    stopped, target = "", group or (ids[0] if len(ids) == 1 else "")
    detail = {"group": group} if group else {} if target else {"ids": list(ids[:MOST_IDS]), "chosen": len(ids)}
    with act(name, who=who, target=target, reason=reason, detail=detail) as entry:
        if group and not ids:
            raise NotFound(
                f"group {group!r}: no open dead letter has this fingerprint; "
                "see `manage.py switchyard deadletters list` for the open groups"
            )
        entry.count = 0
        for message_id in ids:
            try:
                why = move(message_id)
            except (NotFound, ActRefused) as error:
                why = str(error)
            except BrokerError as error:
                stopped, entry.error = f"The broker did not answer: {error}", "BrokerError"
                break
            if why:
                skipped.append(why)
            else:
                done.append(message_id)
                entry.count = len(done)
        if skipped and not done and not stopped:
            entry.error = "nothing moved"
    return BulkResult(tuple(done), tuple(skipped), stopped=stopped)
