"""Reads of batches for pages, commands and findings."""

import re
from collections.abc import Sequence
from typing import Any, Final

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.stores.batches import CALLBACKS, STATES, BatchRecord, Members, MemberState

PAGE: Final = 50
ID: Final = re.compile(r"[0-9a-f]{12}")
# Without a callback that is due for so long, or without any change, a batch is a finding.
UNSENT_MS: Final = 90_000
UNCHANGED_MS: Final = 24 * 3_600_000
LOOKED_AT: Final = 200


def find(batch_id: str) -> BatchRecord:
    """Return a batch.

    Raises:
        NotFound: there is none of this id, or it ended over seven days ago.
        BrokerUnavailable: the broker did not answer.
    """
    store = facilities().batches
    found = store.read([batch_id])[0] if store is not None and ID.fullmatch(batch_id) else None
    if found is None:
        raise NotFound(f"batch {batch_id:.50}: no batch has this id, or it ended over seven days ago")
    return found


def newest(*, before: int | None = None, limit: int = PAGE) -> tuple[list[BatchRecord], int | None]:
    """Return batches made before a time, in ms, newest first, and that time of the older ones; ``None`` at the end.

    Those that have expired are left out.
    """
    store = facilities().batches
    if store is None:
        return [], None
    listed = store.newest(before=before, limit=limit)
    found = [record for record in store.read([id_ for id_, _ in listed]) if record is not None]
    return found, listed[-1][1] if len(listed) == limit else None


def members(batch_id: str, state: str, *, cursor: str = "0") -> Members:
    """Return about a page of the members in a state, in no order.

    Raises:
        ValueError: there is no such state, or the cursor is none.
        BrokerUnavailable: the broker did not answer.
    """
    if state not in STATES:
        raise ValueError(f"state: {state!r:.50} is not a state of a member; write one of {', '.join(STATES)}")
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 20):
        raise ValueError(f"cursor: {cursor!r:.50} is not a cursor; take it from the answer before")
    store = facilities().batches
    if store is None:
        return Members({}, "0")
    chosen: MemberState = state  # type: ignore[assignment]
    return store.members(batch_id, chosen, cursor=cursor, count=PAGE)


def stuck() -> list[tuple[BatchRecord, str]]:
    """Return those of the next 200 batches that do not go on by themselves, and why, as half a sentence."""
    store = facilities().batches
    records: Sequence[BatchRecord | None] = [] if store is None else store.read(store.unfinished(LOOKED_AT))
    now = now_ms()
    found = []
    for record in records:
        if record is None:
            continue
        is_due = {
            "on_success": record.state == "succeeded",
            "on_failure": record.failed > 0,
            "on_complete": record.state in ("succeeded", "complete"),
        }
        due = [name for name in CALLBACKS if is_due[name] and name in record.callbacks and name not in record.sent]
        if due and now - max(record.changed_at, record.completed_at) > UNSENT_MS:
            found.append((record, f"its {' and '.join(due)} cannot be sent"))
        elif record.state == "open" and now - record.changed_at > UNCHANGED_MS:
            found.append((record, f"{record.open} of its members have not ended, and none did for a day"))
    return found


def state_of(record: BatchRecord) -> str:
    """Return the state of a batch, as pages and commands show it."""
    if record.state == "open":
        if record.cancelled_at:
            return "is being cancelled"
        return "runs" if record.closed_at else "runs, and is not closed"
    if record.state == "succeeded":
        return "succeeded"
    return "ended without success" if record.abandoned or record.failed or record.cancelled else "was cancelled"


def summary(record: BatchRecord) -> dict[str, Any]:
    times = ("created_at", "changed_at", "closed_at", "cancelled_at", "completed_at")
    return {
        **{name: getattr(record, name) for name in ("id", "name", "state", "total", *STATES)},
        "tags": list(record.tags),
        "parent": record.parent or None,
        **{name: _moment(getattr(record, name)) for name in times},
        "callbacks": {name: _moment(record.sent.get(name, 0)) for name in CALLBACKS if name in record.callbacks},
    }


def _moment(ms: int) -> str | None:
    return datetime_of(ms).isoformat() if ms else None
