"""Leases of a worker that has no supervisor: a thread of its own holds them.

For ``rundramatiq``, for tests, and for a plain ``dramatiq.Worker``. A task that never lets go of the interpreter
starves this thread and loses its lease; under ``runpool`` the parent process holds it.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid

import redis

from broker.keys.queue_keys import Lane
from broker.queue.leases import LeaseKeeper, owner_of
from broker.queue.operations import QueueOperations
from broker.redis.calls import RedisCalls


class SelfManagedLeases:
    """Owners of this process, one for each lane, until it stops.

    Args:
        client: Whose server's address is used.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._wire = RedisCalls(client)
        self._keepers: dict[str, tuple[str, LeaseKeeper]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="switchyard-leases", daemon=True)

    def owner(self, family: QueueOperations, lane: Lane) -> str:
        """Return the owner that consumes a lane in this process. It has its lease.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        queue = family.keys.queue
        with self._lock:
            known = next(
                (owner for owner in self._keepers if owner.startswith(f"{queue} ") and owner.endswith(lane)), None
            )
            if known is not None:
                return known.split(" ")[1]
            child = f"worker.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
            own = QueueOperations(self._wire, family.keys)
            keeper = LeaseKeeper({queue: own}, [(queue, lane)])
            keeper.adopt(child)
            owner = owner_of(child, (queue, lane))
            own.join(owner)
            self._keepers[f"{queue} {owner}"] = child, keeper
            if not self._thread.is_alive():
                self._thread.start()
            return owner

    def drop(self, owner: str) -> None:
        """Forget an owner that lost its lease."""
        with self._lock:
            for name in [name for name in self._keepers if name.endswith(f" {owner}")]:
                del self._keepers[name]

    def stop(self) -> None:
        """Give everything back that these owners still hold."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for child, keeper in self._keepers.values():
                keeper.forget(child)
            self._keepers.clear()
        self._wire.close()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                keepers = [keeper for _, keeper in self._keepers.values()]
                for keeper in keepers:
                    keeper.tick()
                next_s = min((keeper.seconds_to_next() for keeper in keepers), default=1.0)
            self._stopping.wait(max(next_s, 0.05))
