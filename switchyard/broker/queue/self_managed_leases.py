"""Leases of a worker that has no supervisor: a thread of its own renews them.

For ``rundramatiq``, for tests, and for a plain ``dramatiq.Worker``. A task that never releases the interpreter starves
this thread and loses its lease; under ``runpool`` the parent process renews it.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable

import redis

from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue.leases import LaneKey, LeaseKeeper, owner_of
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.access import calls_on


class SelfManagedLeases:
    """Owners of this process, one for each lane, until it stops, on connections of their own.

    ``lost`` is called in the renewing thread with an owner that lost its lease: others have its messages.
    """

    def __init__(self, client: redis.Redis, *, lost: Callable[[str], None]) -> None:
        self._calls = calls_on(client)
        self._keeper = LeaseKeeper({}, [])
        self._lost = lost
        # Each owner is a child of its own, because a lost owner's name cannot be used again.
        self._children: dict[LaneKey, str] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="switchyard-leases", daemon=True)

    def owner(self, queue: QueueOperations, lane: Lane) -> str:
        """Return the owner that consumes a lane in this process. It has its lease."""
        key = (queue.keys.queue, lane)
        with self._lock:
            if key not in self._children:
                child = f"worker.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
                own = QueueOperations(self._calls, queue.keys)
                own.join(owner_of(child, key))
                self._keeper.add_queue(own)
                self._keeper.adopt(child, [key])
                self._children[key] = child
                if not self._thread.is_alive():
                    self._thread.start()
            return owner_of(self._children[key], key)

    def drop(self, owner: str) -> bool:
        """Forget an owner that lost its lease, if it is known; :meth:`owner` makes another one for its lane."""
        with self._lock:
            for key, child in list(self._children.items()):
                if owner_of(child, key) == owner:
                    del self._children[key]
                    self._keeper.forget(child)
                    return True
        return False

    def stop(self) -> None:
        """Stop renewing, and reclaim everything that these owners still hold."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for child in self._children.values():
                self._keeper.forget(child)
            self._children.clear()
        self._calls.close()

    def _renew(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                lost = set(self._keeper.tick())
                owners = [owner_of(child, key) for key, child in self._children.items() if child in lost]
                next_s = self._keeper.seconds_to_next()
            for owner in owners:
                self._lost(owner)
            self._stopping.wait(max(next_s, 0.05))
