"""Kinds of bulk acts: their interface, and where each is."""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

import msgspec

from switchyard.broker.errors import NotFound, SwitchyardError
from switchyard.bulk.models import BulkAct
from switchyard.console.formatting import counted


class NoRoom(SwitchyardError):
    """A queue is at its ``max_depth``; the act goes on once it has room."""

    def __init__(self, queues: str) -> None:
        super().__init__(f"queue {queues} is full; the act goes on once there is room")


Item = list[Any]


class Taken(msgspec.Struct, frozen=True):
    """Items of one step, JSON values each.

    Args:
        items: At most as many as were asked for; none may match although more is to come.
        cursor: Where the next step begins.
        more: Whether there is a next step.
        skips: Items that are left as they are, by reason.
        waits: Nothing is to be done for a second: the next step is asked for again then.
        stopped: Why the act ends before its end, "" to go on. ``cursor`` may name a job of it, ``failed_job``.
    """

    items: Sequence[Item]
    cursor: dict[str, Any]
    more: bool
    skips: dict[str, int] = msgspec.field(default_factory=dict)
    waits: bool = False
    stopped: str = ""


class KindTexts(msgspec.Struct, frozen=True):
    """Texts of a kind on the pages.

    Args:
        verb: Such as ``Requeue``.
        one, many: Such as ``dead letter`` and ``dead letters``.
        effect: Sentence, the consequence for what is hit.
        undo: Sentence.
        left: What a stop leaves as it is, such as ``dead``.
        destructive: The act cannot be undone at once: a reason is asked for.
        rolls_out: It begins with a canary and watches what it has done, by the act's plan.
        taken_back_by: Kind of the act that takes back what has not started; "" for none.
    """

    verb: str
    one: str
    many: str
    effect: str
    undo: str
    left: str
    destructive: bool = False
    rolls_out: bool = False
    taken_back_by: str = ""

    def counted(self, count: int) -> str:
        """Return ``1 dead letter`` or ``5,000 dead letters``."""
        return counted(count, self.one, self.many)


def most_common(names: Iterable[str], count: int = 3) -> str:
    """Return the most frequent names with their numbers, for the page that asks; ``–`` for none."""
    found = Counter(names).most_common(count + 1)
    shown = ", ".join(f"{name} ({number:,})" for name, number in found[:count])
    return shown + (" and others" if len(found) > count else "") or "–"


def plain_fields(filter: dict[str, Any], known: Sequence[str], of: str) -> dict[str, str]:
    """Return the fields of a filter that are not empty; ``ValueError`` for one that is not known, or holds a NUL."""
    for name, value in filter.items():
        if "\0" in str(value):
            raise ValueError(f"{name}: {value!r:.40} has a NUL character; remove it")
    given = {name: str(value).strip() for name, value in filter.items() if value not in (None, "")}
    if wrong := next((name for name in given if name not in known), None):
        raise ValueError(f"filter of {of}: no field {wrong!r}; known are {', '.join(known)}")
    return given


class Kind(Protocol):
    """One kind of bulk act, the base of all. All methods may be called again after a crash."""

    act: str  # name in the audit log
    right: str  # that the act needs, app label and codename
    texts: KindTexts

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return who is hit, as names and texts for the page that asks."""

    def address(self, filter: dict[str, Any]) -> str:
        """Return the address of the list of what is hit, by default "": there is none."""
        return ""

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter in its stored form; ``ValueError`` for an unknown field, or one without a valid value."""

    def queues(self, act: BulkAct) -> Iterable[str] | None:
        """Return the queues of all that match; ``None`` where that may be any. Asked for a person of some queues."""
        queue = act.filter.get("queue")
        return [queue] if queue else None

    def count(self, act: BulkAct) -> int:
        """Return about how many items match, at most so many."""

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Return the next items after ``act.cursor``. Runs in the transaction that commits them as in hand."""

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Apply the act to the items in the broker; return for each "" or the reason why it was skipped.

        Runs outside of a transaction.

        Args:
            repeated: An earlier call may have applied it to some or all of them.
        """

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Record the results in the database, by default nothing.

        Runs once, in the transaction that commits counts and cursor.
        """
        return


# Module of the acts on a subject, loaded only where one is needed, and their verbs: constants in upper case there.
KINDS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "batch": ("switchyard.batches.views", ("cancel", "retry")),
    "job": ("switchyard.jobs.bulk", ("cancel", "cancel_chosen", "run_again", "run_chosen_again")),
    "letter": (
        "switchyard.dead_letters.bulk_moves",
        ("acknowledge", "canary", "discard", "requeue", "restore", "take_back"),
    ),
}


def kind_of(name: str) -> Kind:
    """Return a kind by its name, such as ``letter.requeue``; ``NotFound`` when there is none."""
    subject, _, verb = name.partition(".")
    module, verbs = KINDS.get(subject, ("", ()))
    if verb not in verbs:
        known = (f"{subject}.{verb}" for subject, (_, verbs) in KINDS.items() for verb in verbs)
        raise NotFound(f"bulk act {name!r}: no such kind; known are {', '.join(known)}")
    kind: Kind = getattr(import_module(module), verb.upper())
    return kind
