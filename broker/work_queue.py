"""The queue between a worker's consumers and its threads: what ``queue.PriorityQueue`` does, with less waking up.

Python's queues wake a waiting thread through a chain of locks made anew for each wait. That cost more than a third of a
worker's time with tasks that do nothing. Here the threads wait in ``queue.SimpleQueue``, which is written in C, for a
token each; the messages lie beside it, in the order of their actors' priorities.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from queue import SimpleQueue
from typing import Any


class WorkQueue:
    """As much of ``queue.PriorityQueue`` as :class:`dramatiq.Worker` uses. Items have a ``priority``."""

    def __init__(self) -> None:
        self.unfinished_tasks = 0
        self._heap: list[tuple[int, int, Any]] = []
        self._order = itertools.count()
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()
        self._finished = threading.Condition(self._lock)

    def put(self, item: Any) -> None:
        """Add an item: the next one of its priority after those that are there."""
        with self._lock:
            self.unfinished_tasks += 1
            heapq.heappush(self._heap, (item.priority, next(self._order), item))
        self._tokens.put(None)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the item with the lowest priority number.

        Raises:
            queue.Empty: there was none in ``timeout`` seconds.
        """
        self._tokens.get(block, timeout)
        with self._lock:
            return heapq.heappop(self._heap)[2]

    def get_nowait(self) -> Any:
        """Take an item.

        Raises:
            queue.Empty: there is none.
        """
        return self.get(block=False)

    def task_done(self) -> None:
        """Note that an item that was taken is worked off."""
        with self._lock:
            self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                self._finished.notify_all()

    def join(self) -> None:
        """Wait until every item that was put is worked off."""
        with self._lock:
            while self.unfinished_tasks:
                self._finished.wait()
