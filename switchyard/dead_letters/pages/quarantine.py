"""The page of quarantined messages: a few of them, each with its first bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from switchyard.broker.interface import facilities
from switchyard.broker.shapes import Unreadable
from switchyard.conf import declared_yard
from switchyard.dead_letters.presentation import seen_at
from switchyard.dead_letters.queries import hex_dump, shown_bytes

SHOWN: Final = 20
# 16 lines. The whole of what is kept would be 19 KB of HTML for each.
SHOWN_BYTES: Final = 256
LONGEST_ERROR: Final = 300


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A quarantined message.

    Args:
        error: Why it is unreadable, cut.
        dump: Its first bytes.
        more_bytes: Bytes of it that are not in ``dump``.
    """

    item: Unreadable
    error: str
    seen_at: datetime
    dump: str
    more_bytes: int


@dataclass(frozen=True, slots=True)
class QuarantinePage:
    """Messages of the queues, in the yard's order, newest first in each.

    Args:
        after: Place at which the next page begins; "" at the end.
    """

    messages: tuple[ShownMessage, ...]
    after: str


def page(after: str = "") -> QuarantinePage:
    """Return a page; an unknown place is the beginning.

    Raises:
        BrokerError: the broker does not answer.
    """
    names = [queue.name for queue in declared_yard().queues]
    name, _, text = after.rpartition("~")
    first, start = (names.index(name), int(text)) if name in names and _is_place(text) else (0, 0)
    found: list[Unreadable] = []
    places: list[str] = []
    for name in names[first:]:
        items = facilities().transport.unreadable(name, cursor=start, limit=SHOWN + 1 - len(found)).items
        found += items
        places += [f"{name}~{start + number}" for number in range(len(items))]
        if len(found) > SHOWN:
            break
        start = 0
    return QuarantinePage(tuple(map(_shown, found[:SHOWN])), "".join(places[SHOWN:]))


def _is_place(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _shown(item: Unreadable) -> ShownMessage:
    raw = shown_bytes(item)
    error = item.error if len(item.error) <= LONGEST_ERROR else f"{item.error[: LONGEST_ERROR - 1]}…"
    return ShownMessage(item, error, seen_at(item), hex_dump(raw[:SHOWN_BYTES]), max(item.size_bytes - SHOWN_BYTES, 0))
