"""Replacement of the pools of older parents, one by one, by those of a parent that runs newer code."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterable, Iterator, Sequence

import psutil

from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.shared.fork import process_title
from switchyard.workers.supervisor.processes import Process, ProcessSet

# A pool that is not ready by then delays the others no longer: a pool of a loaded project starts in about a second.
SLOW_S = 10.0
# A task that does not end delays nobody: the new pool works already.
GRACE_S = 5.0

logger = logging.getLogger("switchyard.workers")


class Replacement:
    """Starts the processes of a parent in turn, and ends the same ones of older parents once each is ready.

    The next process starts when the older ones have drained, or at once where no older parent runs. An older parent
    does not restart what was drained, and ends with its last process.

    Args:
        titles: Of the processes, by position; older parents give the same ones. "" for one that ends with its parent.
        older: Process ids of those parents.
    """

    def __init__(
        self, process_set: ProcessSet, rows: Sequence[ChildRow], titles: Sequence[str], older: Sequence[int]
    ) -> None:
        self._process_set, self._older = process_set, list(_processes(older))
        self._positions = list(zip(process_set.processes, rows, titles, strict=True))
        self._to_start = list(self._positions)
        self._were_ready: set[int] = set()
        self._starting: Process | None = None
        self._ending: list[psutil.Process] = []
        self._until_s = 0.0  # when the next one starts in any case

    @property
    def over(self) -> bool:
        """Whether nothing runs any longer, nor is to be started."""
        return not self._to_start and not any(process.wanted or process.pid for process, _, _ in self._positions)

    def work(self) -> None:
        """End what is replaced, and start the next process when it is due."""
        for process, row, title in self._positions:
            if process.index not in self._were_ready and row.read().ready:
                self._note_ready(process, title)
        while self._to_start and self._is_next_due():
            process, _, _ = self._to_start.pop(0)
            self._process_set.fill(process)
            self._starting, self._until_s = process, time.monotonic() + SLOW_S

    def cancel(self) -> None:
        """Start no more processes, and end those that were never ready: newer ones replace all."""
        self._to_start.clear()
        for process, _, _ in self._positions:
            if process.wanted and process.index not in self._were_ready:
                self._process_set.end(process)

    def _note_ready(self, process: Process, title: str) -> None:
        self._were_ready.add(process.index)
        replaced = [child for parent in self._older for child in _children(parent) if has_title(child, title)]
        _terminate(replaced)
        if process is self._starting:
            self._starting, self._ending, self._until_s = None, replaced, time.monotonic() + GRACE_S
        if len(self._were_ready) == len(self._positions) and self._older:
            _terminate(self._older)
            logger.info("reload: all pools are replaced")

    def _is_next_due(self) -> bool:
        if not any(parent.is_running() for parent in self._older):
            return True
        if time.monotonic() < self._until_s:
            return self._starting is None and not any(process.is_running() for process in self._ending)
        if self._starting is not None:
            title = next(title for process, _, title in self._positions if process is self._starting)
            logger.error("reload: %s is not ready; until it is, its old one keeps running the old code", title)
        return True


def has_title(process: psutil.Process, title: str) -> bool:
    """Return whether a process of ours has a title, as ``name_process`` gives it."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).strip() == process_title(title)
    return False


def _processes(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            yield psutil.Process(pid)


def _children(parent: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return parent.children()
    return []


def _terminate(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
