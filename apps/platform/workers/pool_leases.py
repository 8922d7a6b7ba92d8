"""The leases of a pool's children: their supervisor holds them, and takes back what a child leaves behind."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from dramatiq.broker import Broker

from apps.platform.workers.table import Finished, Row, Running
from broker.clients import connect
from broker.family import Family
from broker.leases import LaneKey, LeaseKeeper, Left
from broker.redis_broker import RedisBroker
from broker.topology import Pool, Yard
from broker.wire import Wire


@dataclass(frozen=True, slots=True)
class Estate:
    """What a child that ended left: its name, what its slots held, what it had worked off."""

    child: str
    running: list[Running]
    finished: list[Finished]


class PoolLeases:
    """Names children, gives them leases before they start, and reclaims when they end.

    Args:
        broker: This yard's; its keys and its server's address are used, over connections of our own.
        url: Address of its server.
    """

    def __init__(self, pool: Pool, yard: Yard, broker: Broker, url: str) -> None:
        if not isinstance(broker, RedisBroker):
            raise TypeError(f"pools run on RedisBroker, not on {type(broker).__name__}; use manage.py rundramatiq")
        self.lanes = yard.served_by(pool)
        self._keys: list[LaneKey] = []
        for lane in self.lanes:
            family, kind = broker.lane(lane)
            self._keys.append((family.keys.queue, kind))
        self._wire = Wire(connect(url, profile="quick"))
        families = {queue: Family(self._wire, broker.families[queue].keys) for queue, _ in self._keys}
        self._keeper = LeaseKeeper(families, self._keys)
        self._name = f"{pool.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._generations: dict[int, int] = {}
        self._children: dict[int, str] = {}

    def adopt(self, place: int, row: Row) -> str:
        """Name the child that is about to start in a place, and give it leases if the server answers within a second.

        The row says to the child whether it has them; :meth:`tick` gives them later.
        """
        generation = self._generations[place] = self._generations.get(place, 0) + 1
        child = self._children[place] = f"{self._name}.{place}.{generation}"
        self._keeper.adopt(child)
        self._keeper.tick()
        self._tell(place, row)
        return child

    def tick(self, rows: Mapping[int, Row]) -> list[int]:
        """Do what is due, for a second at most; return the places of children that lost a lease and must end.

        Args:
            rows: Place -> row.
        """
        lost = self._keeper.tick()
        for place in self._children:
            self._tell(place, rows[place])
        return [place for place, child in self._children.items() if child in lost]

    def seconds_to_next(self) -> float:
        """Return in how many seconds something is due."""
        return self._keeper.seconds_to_next()

    def ended(self, place: int, row: Row) -> Estate:
        """Return what the child of a place left, before its row is cleared."""
        return Estate(self._children.pop(place), row.running(), row.finished())

    def settle(self, estate: Estate) -> None:
        """Take back an estate: what was worked off is acknowledged, the rest goes to the heads of its lanes."""
        left = {
            key: Left(finished=[(done.id, b"%d" % done.token) for done in estate.finished if done.lane == lane])
            for lane, key in enumerate(self._keys)
        }
        self._keeper.reclaim(estate.child, left)

    def close(self) -> None:
        """Close the connections; in a forked child, those it inherited."""
        self._wire.close()

    def _tell(self, place: int, row: Row) -> None:
        if not row.leased and self._keeper.has_leases(self._children[place]):
            row.set_leased()
