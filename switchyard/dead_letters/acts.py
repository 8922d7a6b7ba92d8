"""Operator actions on letters and quarantined messages, each call with its row in the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who, act
from switchyard.broker.errors import ActRefused, BrokerError, NotFound, not_quarantined
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.dead_letters import actions, bulk
from switchyard.dead_letters.actions import ActionResult
from switchyard.dead_letters.bulk import Action, BulkResult
from switchyard.dead_letters.editing import EditedArguments

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from switchyard.dead_letters.models import DeadLetter


ACTIONS: dict[str, Action] = {
    "acknowledge": actions.acknowledge,
    "requeue": actions.requeue,
    "discard": actions.discard,
}
# More ids make the row of an act larger than the page that shows it.
MOST_IDS = 100


def apply(name: str, letters: Sequence[DeadLetter | str], *, who: Who, by: User | str, reason: str = "") -> BulkResult:
    """Apply an action to letters one by one, see ``bulk.apply_to_each``.

    Args:
        name: ``acknowledge``, ``requeue`` or ``discard``.
    """
    return _apply(f"letter.{name}", ACTIONS[name], letters, who=who, by=by, reason=reason)


def apply_to_group(
    name: Literal["requeue", "discard"], fingerprint: str, *, who: Who, by: User | str, reason: str = ""
) -> BulkResult:
    """Requeue or discard a group's open letters, see ``bulk.apply_to_group``.

    Raises:
        NotFound: no open letter has that fingerprint.
    """
    with act(f"letter.{name}", who=who, target=fingerprint, reason=reason, detail={"group": fingerprint}) as entry:
        outcome = bulk.apply_to_group(_counted(ACTIONS[name], entry), fingerprint, by=by, reason=reason)
        _conclude(entry, outcome)
    return outcome


def restore(letters: Sequence[DeadLetter | str], *, who: Who, by: User | str, reason: str = "") -> BulkResult:
    """Restore discarded letters one by one, see ``actions.restore``."""
    return _apply("letter.restore", actions.restore, letters, who=who, by=by, reason=reason)


def note(letter: DeadLetter | str, *, who: Who, by: User | str, text: str) -> ActionResult:
    """Append a note to a letter's history, see ``actions.note``."""
    target = letter if isinstance(letter, str) else letter.message_id
    with act("letter.note", who=who, target=target, reason=text) as entry:
        result = actions.note(letter, by=by, text=text)
        entry.count = int(result.done)
    return result


def edit_and_requeue(
    row: DeadLetter, edited: EditedArguments, *, who: Who, by: User | str, reason: str = ""
) -> ActionResult:
    """Requeue a letter with other arguments; the audit log names each change, without secrets."""
    detail = {"changed": edited.changes, "actor": row.actor}
    with act("letter.edit", who=who, target=row.message_id, reason=reason, detail=detail) as entry:
        changed = ", ".join(edited.changes) or "nothing"
        note = f"{reason} (changed: {changed})".strip()
        result = actions.requeue(row, by=by, reason=note, arguments=edited.arguments)
        entry.count = int(result.done)
    return result


def move_quarantined(
    name: Literal["requeue", "discard"], ids: Sequence[str], *, who: Who, reason: str = ""
) -> BulkResult:
    """Requeue or discard quarantined messages, see ``move_each``."""
    target, detail = (ids[0], {}) if len(ids) == 1 else ("", {"ids": list(ids[:MOST_IDS]), "chosen": len(ids)})
    with act(f"quarantine.{name}", who=who, target=target, reason=reason, detail=detail) as entry:
        outcome = move_each(name, ids)
        _conclude(entry, outcome)
    return outcome


def _apply(
    name: str, action: Action, letters: Sequence[DeadLetter | str], *, who: Who, by: User | str, reason: str
) -> BulkResult:
    ids = [letter if isinstance(letter, str) else letter.message_id for letter in letters]
    target, detail = (ids[0], {}) if len(ids) == 1 else ("", {"ids": ids[:MOST_IDS], "chosen": len(ids)})
    with act(name, who=who, target=target, reason=reason, detail=detail) as entry:
        outcome = bulk.apply_to_each(_counted(action, entry), letters, by=by, reason=reason)
        _conclude(entry, outcome)
    return outcome


def _counted(action: Action, entry: AuditEntry) -> Action:
    entry.count = 0

    def run(letter: DeadLetter | str, *, by: User | str, reason: str = "") -> ActionResult:
        result = action(letter, by=by, reason=reason)
        entry.count = (entry.count or 0) + result.done
        return result

    return run


def _conclude(entry: AuditEntry, outcome: BulkResult) -> None:
    entry.count = len(outcome.done)
    if outcome.stopped:
        entry.error = "BrokerError"
    elif outcome.skipped and not outcome.done:
        entry.error = "nothing moved"


def move_each(action: Literal["requeue", "discard"], ids: Iterable[str]) -> BulkResult:
    """Requeue or discard quarantined messages one by one. Stops at the first broker error; earlier actions stand."""
    done: list[str] = []
    skipped: list[str] = []
    for message_id in ids:
        try:
            _move(action, message_id)
            done.append(message_id)
        except (NotFound, ActRefused) as error:
            skipped.append(str(error))
        except BrokerError as error:
            return BulkResult(tuple(done), tuple(skipped), stopped=f"The broker did not answer: {error}")
    return BulkResult(tuple(done), tuple(skipped))


def _move(action: Literal["requeue", "discard"], message_id: str) -> None:
    transport = facilities().transport
    move = transport.requeue_quarantined if action == "requeue" else transport.discard_quarantined
    names = [queue.name for queue in declared_yard().queues]
    for name in names:
        try:
            return move(name, message_id)
        except NotFound:
            continue
    raise not_quarantined(", ".join(names), message_id)
