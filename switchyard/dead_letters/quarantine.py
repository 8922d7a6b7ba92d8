"""Operator actions on quarantined messages: requeue, after an upgrade, and discard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from switchyard.broker.errors import ActRefused, BrokerError, NotFound, not_quarantined
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.dead_letters.bulk import BulkResult


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
