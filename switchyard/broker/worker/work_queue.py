"""The queue between a worker's consumers and its threads: what ``queue.PriorityQueue`` does, with less waking up.

Python's queues wake a waiting thread through a chain of locks made anew for each wait. That cost more than a third of a
worker's time with tasks that do nothing. Here each thread keeps one lock to wait on, and an item that is there is taken
without any waiting. (``queue.SimpleQueue`` is no way: on a busy machine a wait with a timeout may never end in
CPython 3.11, which then stops no worker.)
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any

from dramatiq.errors import QueueJoinTimeout


class WorkQueue:
    """As much of ``queue.PriorityQueue`` as :class:`dramatiq.Worker` uses.

    Items are ordered by their ``priority``; where the server does not order messages, by the ``level`` of each message.
    """

    def __init__(self, level: Callable[[Any], int] | None = None) -> None:
        self._level = level
        self.unfinished_tasks = 0
        self._heap: list[tuple[int, int, Any]] = []
        self._order = itertools.count()
        self._waiting: deque[threading.Lock] = deque()
        self._own = threading.local()
        self._lock = threading.Lock()
        self._ended = False
        # Whether threads wait until there is work or the end, however short their timeout: whoever sets it calls end().
        self.patient = False
        self._finished = threading.Condition(self._lock)

    def put(self, item: Any) -> None:
        """Add an item: the next one of its priority, or level, after those that are there."""
        priority = item.priority if self._level is None else self._level(item.message)
        with self._lock:
            self.unfinished_tasks += 1
            heapq.heappush(self._heap, (priority, next(self._order), item))
            if self._waiting:
                self._waiting.popleft().release()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the item with the lowest priority number; ``queue.Empty`` when there was none in ``timeout`` seconds."""
        until_s = None if timeout is None or self.patient else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._heap:
                    return heapq.heappop(self._heap)[2]
                if not block or self._ended:
                    raise Empty
                turn = self._turn()
                self._waiting.append(turn)
            if until_s is None:
                turn.acquire()
            elif not turn.acquire(timeout=max(until_s - time.monotonic(), 0)):
                block = False
                with self._lock:
                    if turn in self._waiting:
                        self._waiting.remove(turn)
                    else:
                        turn.acquire()  # it was this one's turn in this very moment

    def end(self) -> None:
        """Wake the threads that wait, now and later: their worker stops."""
        with self._lock:
            self._ended = True
            while self._waiting:
                self._waiting.popleft().release()

    def _turn(self) -> threading.Lock:
        """Return this thread's lock, taken: whoever releases it wakes the thread."""
        found = getattr(self._own, "turn", None)
        if found is None:
            found = self._own.turn = threading.Lock()
            found.acquire()
        return found

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def waiting(self) -> list[Any]:
        """Return the items that wait, in no order."""
        with self._lock:
            return [item for _, _, item in self._heap]

    def task_done(self) -> None:
        with self._lock:
            self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                self._finished.notify_all()

    def join(self) -> None:
        with self._lock:
            while self.unfinished_tasks:
                self._finished.wait()


def join(lane: str, works: Callable[[], bool], *, timeout: int | None, interval: int) -> None:
    """Wait until a lane has no work, polled every ``interval`` ms; ``QueueJoinTimeout`` after ``timeout`` ms."""
    give_up_s = None if timeout is None else time.monotonic() + timeout / 1000
    while works():
        if give_up_s is not None and time.monotonic() >= give_up_s:
            raise QueueJoinTimeout(lane)
        time.sleep(interval / 1000)
