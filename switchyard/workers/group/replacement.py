"""Replacement of pools one by one: orders of the reloader to a parent of pools, and the parent's answers.

Each is a list of words. Orders: ``start`` the next pool (``start late``: the one before is not ready yet), start
``all``, ``cancel`` those that were never ready, end those that newer ones ``replaced``, with their names. Answers:
``ready`` with names, or without any once pools can start; ``ended`` with the names of an order; ``complete`` once every
pool was ready.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections import deque
from collections.abc import Sequence

from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.supervisor.processes import Process, ProcessSet

logger = logging.getLogger("switchyard.workers")


class ReloadChannel:
    """One end of a connected pair of sockets, on which lists of words come and go without waiting."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._rest = b""
        self.closed = False  # by the other side

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._end.fileno()

    def send(self, *words: str) -> None:
        """Send a list. A process that ended gets none: its end is noticed elsewhere."""
        with contextlib.suppress(OSError):
            self._end.sendall(json.dumps(words).encode() + b"\n")

    def take(self) -> list[list[str]]:
        """Return the lists that came since the last call, oldest first."""
        try:
            received = self._end.recv(65_536)
        except BlockingIOError:
            return []
        except ConnectionError:
            received = b""
        self.closed = not received
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self._end.close()


class Replacement:
    """Starts and ends the processes of a set by order of a reloader.

    Args:
        pools: Names of the pools of each position; none for a process that replaces no pool.
    """

    def __init__(
        self, channel: ReloadChannel, process_set: ProcessSet, rows: Sequence[ChildRow], pools: Sequence[Sequence[str]]
    ) -> None:
        self._channel = channel
        self._process_set = process_set
        self._positions = list(zip(process_set.processes, rows, pools, strict=True))
        self._to_start = deque(self._positions)
        self._last: Sequence[str] = ()
        self._were_ready: set[int] = set()
        self._complete = False
        self._replaced: set[str] = set()
        self._to_answer: list[list[str]] = []
        channel.send("ready")

    def work(self) -> None:
        """Obey the orders that came, and answer those that are done."""
        for order, *words in self._channel.take():
            if order == "start":
                self._start_next(late="late" in words)
            elif order == "all":
                while self._to_start:
                    self._start_next()
            elif order == "cancel":
                self._to_start.clear()
                self._end([process for process, _, _ in self._positions if process.index not in self._were_ready])
            elif order == "replaced":
                self._to_answer.append(words)
                self._replaced.update(words)
                # Pools of one parent end together, once each of them is replaced.
                self._end([process for process, _, pools in self._positions if pools and self._replaced >= set(pools)])
        self._answer()

    def _start_next(self, *, late: bool = False) -> None:
        if late and self._last:
            logger.error(
                "reload: pool %s is not ready; until it is, its old one keeps running the old code",
                ", ".join(self._last),
            )
            self._last = ()
        if self._to_start:
            process, _, self._last = self._to_start.popleft()
            self._process_set.fill(process)

    def _end(self, processes: list[Process]) -> None:
        for process in processes:
            if process.wanted:
                self._process_set.end(process)

    def _answer(self) -> None:
        for process, row, pools in self._positions:
            if process.index not in self._were_ready and row.read().ready:
                self._were_ready.add(process.index)
                self._channel.send("ready", *pools)
        if not self._complete and len(self._were_ready) == len(self._positions):
            self._complete = True
            self._channel.send("complete")
        ending = {name for process, _, pools in self._positions if process.pid and not process.wanted for name in pools}
        for words in [words for words in self._to_answer if ending.isdisjoint(words)]:
            self._to_answer.remove(words)
            self._channel.send("ended", *words)
