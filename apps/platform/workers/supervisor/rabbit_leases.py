"""Leases of a pool's children on RabbitMQ, where the server itself gives a lost child's messages to others."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from apps.platform.workers.shared.child_state import Running
from apps.platform.workers.shared.child_table import ChildRow
from apps.platform.workers.supervisor.leases import ChildLeases, Leftovers
from broker.errors import BrokerError
from broker.keys.keys import Keys
from broker.rabbit.publication import Publication
from broker.rabbit.redeliveries import Redeliveries

# How often the isolated lanes are counted on the server.
COUNT_EVERY_S, COUNT_AGAIN_S = 2.0, 10.0

logger = logging.getLogger("switchyard.workers")


class RabbitLeases(ChildLeases):
    """Leases that show children whether the Redis server beside RabbitMQ answers: without it nothing starts.

    A message belongs to the connection that received it. When a child ends, the kernel closes its connections, and the
    server delivers their messages again, 0.25 s later at the earliest. By then the supervisor has noted which of them
    had ended, and which ran while the child crashed.

    Args:
        count: Returns how many messages are ready in queues of the server, given pairs of a lane and a queue's name.
    """

    def __init__(
        self, *args: Any, keys: Keys, count: Callable[[Iterable[tuple[str, str]]], list[int]], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._redeliveries = Redeliveries(self._calls, keys)
        self._count = count
        self._counted = [(lane, f"{keys.prefix}.{lane}") for lane in self.isolated.names]
        self._count_at_s = 0.0
        self._notes: deque[Callable[[], None]] = deque()

    @property
    def settled(self) -> bool:
        """Whether all messages of children that ended are noted."""
        return super().settled and not self._notes

    def settle(self, leftovers: Leftovers, suspects: Sequence[Running] = (), cause: str = "") -> None:
        """Note which messages a child had finished, and which crashed it, for the worker that gets them next."""
        counts = not cause.startswith("limit")
        ended = [Publication(_text(done.id), b"%d" % done.token) for done in leftovers.finished]
        self._notes.append(partial(self._redeliveries.note_ends, ended))
        for ran in suspects:
            self._notes.append(partial(self._redeliveries.note_crash, _text(ran.id), cause, counts=counts))
        self._write_notes()
        super().settle(Leftovers(leftovers.child, leftovers.served, cancelled=leftovers.cancelled))
        self._isolated_waiting += sum(leftovers.served.keys[ran.lane][1] == "alone" for ran in suspects)
        if suspects:
            self._count_at_s = time.monotonic() + COUNT_EVERY_S / 2

    def tick(self, rows: Mapping[int, ChildRow]) -> list[int]:
        """Renew the leases, write notes, and count what waits in the isolated lanes."""
        lost = super().tick(rows)
        if self._notes and not self.keeper.away:
            self._write_notes()
        if time.monotonic() >= self._count_at_s:
            self._count_isolated()
        return lost

    def _write_notes(self) -> None:
        try:
            while self._notes:
                self._notes[0]()
                self._notes.popleft()
        except BrokerError as error:
            logger.warning("%d messages of children that ended are noted later: %s", len(self._notes), error)

    def _count_isolated(self) -> None:
        try:
            self._isolated_waiting = max(self._isolated_waiting, sum(self._count(self._counted)))
            self._count_at_s = time.monotonic() + COUNT_EVERY_S
        except BrokerError as error:
            logger.warning("messages that wait to run alone cannot be counted: %s", error)
            self._count_at_s = time.monotonic() + COUNT_AGAIN_S


def _text(id_: bytes) -> str:
    return str(id_, "ascii", "replace")
