"""Leases of a pool's children on RabbitMQ, where the server itself gives a lost child's messages to others."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from switchyard.addons.rabbitmq.backlog import Count, RabbitBacklog
from switchyard.addons.rabbitmq.publication import Publication
from switchyard.addons.rabbitmq.redeliveries import Redeliveries
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys.keys import Keys
from switchyard.workers.shared.child_state import Running
from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.supervisor.leases import ChildLeases, Leftovers

# The server delivers the suspects of a child that ended, and a worker isolates them, within this time.
ISOLATED_WITHIN_S = 1.0

logger = logging.getLogger("switchyard.workers")


class RabbitLeases(ChildLeases):
    """Leases that show children whether the Redis server beside RabbitMQ answers: without it nothing starts.

    A message belongs to the connection that received it. When a child ends, the kernel closes its connections, and the
    server delivers their messages again, 0.25 s later at the earliest. By then the supervisor has noted which of them
    had ended, which ran while the child crashed, and which have crashed nothing. Without such a note, supervisor and
    child ended together: what the child held becomes lapse suspects.

    Args:
        count: Returns how many messages are ready in queues of the server.
    """

    def __init__(self, *args: Any, keys: Keys, count: Count, **options: Any) -> None:
        super().__init__(*args, **options)
        self.backlog = RabbitBacklog(self._calls, self._queues, self.served.keys, keys=keys, count=count)
        self._redeliveries = Redeliveries(self._calls, keys)
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
        blamed = {Publication(_text(ran.id), b"%d" % ran.token).mark for ran in suspects}
        self._notes.append(
            partial(self._redeliveries.note_returns, [mark for mark in leftovers.held if mark not in blamed])
        )
        self._write_notes()
        super().settle(Leftovers(leftovers.child, leftovers.served, cancelled=leftovers.cancelled))
        self._isolated_waiting += sum(leftovers.served.keys[ran.lane][1] == "alone" for ran in suspects)
        if suspects:
            self.backlog.poll_within(ISOLATED_WITHIN_S)

    def tick(self, rows: Mapping[int, ChildRow]) -> list[int]:
        """Renew the leases, and write notes."""
        lost = super().tick(rows)
        if self._notes and not self.keeper.away:
            self._write_notes()
        return lost

    def _write_notes(self) -> None:
        try:
            while self._notes:
                self._notes[0]()
                self._notes.popleft()
        except BrokerError as error:
            logger.warning("%d messages of children that ended are noted later: %s", len(self._notes), error)


def _text(id_: bytes) -> str:
    return str(id_, "ascii", "replace")
