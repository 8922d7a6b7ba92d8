"""Reads of dead letters."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import dramatiq
from django.db.models import Count, Max, Min, Q, QuerySet

from switchyard.broker.errors import NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import Unreadable
from switchyard.conf import declared_yard
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import project
from switchyard.middleware.redaction import redacted

HEX_WIDTH = 16


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Open letters of one fingerprint, or those of other states.

    ``new`` counts the unacknowledged ones; ``sample`` is the key of the newest row, with its ``error``.
    """

    fingerprint: str
    exception: str
    actor: str
    queue: str
    letters: int
    new: int
    first_at: datetime
    last_at: datetime
    sample: int = 0
    error: str = ""


def find(letter: DeadLetter | str) -> DeadLetter:
    """Return the row of a message id, or ``NotFound``. Creates the row if only a dead list holds the letter so far."""
    if isinstance(letter, DeadLetter):
        return letter
    row = DeadLetter.objects.filter(message_id=letter).first()
    if row is not None:
        return row
    for queue in declared_yard().queues:
        found = facilities().transport.find_dead_letter(queue.name, letter)
        if found is not None:
            project(found)
            return DeadLetter.objects.get(message_id=letter)
    raise NotFound(f"dead letter {letter!r}: no such dead letter; see `manage.py switchyard deadletters list`")


def letter_of_key(pk: int) -> DeadLetter:
    """Return a row by its key; ``NotFound`` when no dead letter has it."""
    row = DeadLetter.objects.filter(pk=pk).first()
    if row is None:
        raise NotFound(f"There is no dead letter {pk}.")
    return row


def listing(*, queue: str = "", fingerprint: str = "", states: tuple[str, ...] = ()) -> QuerySet[DeadLetter]:
    """Return dead letters, newest first; without ``states`` the open ones."""
    rows = DeadLetter.objects.filter(state__in=states) if states else DeadLetter.objects.filter(is_open=1)
    if queue:
        rows = rows.filter(queue=queue)
    return rows.filter(fingerprint=fingerprint) if fingerprint else rows


def behind(rows: QuerySet[DeadLetter], at: datetime, pk: int, order: str) -> QuerySet[DeadLetter]:
    """Return those that died before a letter, ``lt``, or after it, ``gt``; of one moment by their keys."""
    later = Q(**{f"died_at__{order}": at}) | Q(**{"died_at": at, f"pk__{order}": pk})
    return rows.filter(later, **{f"died_at__{order}e": at})


def open_fingerprints(fingerprints: Collection[str]) -> set[str]:
    """Return those of some fingerprints that have open letters."""
    found = DeadLetter.objects.filter(is_open=1, fingerprint__in=fingerprints).order_by()
    return set(found.values_list("fingerprint", flat=True).distinct())


def open_count(*, before: datetime | None = None) -> int:
    """Return the number of open letters, or of those that died before a moment."""
    rows = DeadLetter.objects.filter(is_open=1)
    return (rows if before is None else rows.filter(died_at__lt=before)).count()


def groups(*, of: QuerySet[DeadLetter] | None = None, limit: int = 20, order: str = "-letters") -> list[LetterGroup]:
    """Return the groups of letters, by default of the open ones, the largest first or in another order."""
    rows = list(
        (listing() if of is None else of)
        .order_by()
        .values("fingerprint")
        .annotate(
            letters=Count("id"),
            new=Count("id", filter=Q(state=DeadLetter.State.NEW)),
            first_at=Min("died_at"),
            last_at=Max("died_at"),
            sample=Max("id"),
        )
        .order_by(order, "fingerprint")[:limit]
    )
    samples = DeadLetter.objects.only("exception", "error", "actor", "queue").in_bulk([row["sample"] for row in rows])
    return [
        LetterGroup(exception=sample.exception, error=sample.error, actor=sample.actor, queue=sample.queue, **row)
        for row in rows
        for sample in [samples[row["sample"]]]
    ]


def first_seen(fingerprints: Collection[str]) -> dict[str, datetime]:
    """Return when the first kept letter of each fingerprint died, whatever became of it since."""
    # Both values of is_open are named, so that the index is used.
    rows = DeadLetter.objects.filter(is_open__in=(0, 1), fingerprint__in=fingerprints).order_by()
    return dict(rows.values_list("fingerprint").annotate(first_at=Min("died_at")))


def group_count() -> int:
    return DeadLetter.objects.filter(is_open=1).order_by().values("fingerprint").distinct().count()


def unreadable(*, queue: str = "", limit: int = 100) -> list[Unreadable]:
    """Return quarantined messages, newest first, at most ``limit`` of each queue."""
    names = [queue] if queue else [queue.name for queue in declared_yard().queues]
    return [item for name in names for item in facilities().transport.unreadable(name, limit=limit).items]


def shown_bytes(item: Unreadable) -> bytes:
    """Return the bytes of a quarantined message, without what its actor redacts where they can be read so far.

    Those of no JSON, of an unknown actor, and of more than the 4 KiB that are kept, are returned as they are.
    """
    try:
        fields = json.loads(item.raw)
        actor = dramatiq.get_broker().actors[fields["actor"]]
        call = {"args": list(fields.get("args") or []), "kwargs": dict(fields.get("kwargs") or {})}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return item.raw
    shown = redacted(actor, call)
    return item.raw if shown == call else json.dumps(fields | shown, separators=(",", ":")).encode()


def hex_dump(raw: bytes) -> str:
    """Return bytes as lines of offset, hexadecimal and printable ASCII."""
    lines = []
    for at in range(0, len(raw), HEX_WIDTH):
        part = raw[at : at + HEX_WIDTH]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{at:06x}  {part.hex(' '):<{HEX_WIDTH * 3}} {text}")
    return "\n".join(lines)
