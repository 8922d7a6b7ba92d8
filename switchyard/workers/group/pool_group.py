"""Common parent of several pools: loads everything once and forks a supervisor for each, so that they share it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import psutil

from switchyard.broker.late_imports import is_patched
from switchyard.broker.topology import Pool
from switchyard.workers.child.spawn import execute
from switchyard.workers.shared.child_table import ChildRow, ChildTable
from switchyard.workers.shared.fork import (
    EX_CRASHED,
    describe_exit,
    fork,
    name_process,
    prepare_to_fork,
    process_title,
    signals_of_parent,
)
from switchyard.workers.supervisor.children import KILL_AFTER_GRACE_S
from switchyard.workers.supervisor.limits import Heartbeats
from switchyard.workers.supervisor.processes import Process, ProcessSet, send
from switchyard.workers.supervisor.supervisor import EX_OK, GRACE_S, POLL_READY_S, Supervisor

# A pool that is not ready by then delays the others no longer: a pool of a loaded project starts in about a second.
SLOW_S = 10.0
# A task that does not end delays nobody: the new pool works already.
SUCCESSOR_GRACE_S = 5.0

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
            self._starting, self._ending, self._until_s = None, replaced, time.monotonic() + SUCCESSOR_GRACE_S
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


# Longer than a supervisor takes to kill its own children.
KILL_MARGIN_S = KILL_AFTER_GRACE_S + 5.0
# A supervisor turns its loop every 2 s, and waits for a broker some times 2 s in a turn at most. Its leases lapse after
# 15 s: nothing of what its children run is theirs any more. One that is not ready may still load the project.
HUNG_S, BOOT_S, LOOK_S = 60.0, 300.0, 5.0
GREENLETS = "greenlet pools"


class Companion(Protocol):
    """A process beside the supervisors: forked before them, and told when they drain and when they have ended."""

    def start(self, close_inherited: Callable[[], None]) -> None: ...
    def pools_drain(self) -> None: ...
    def finish(self) -> None: ...


class PoolGroup:
    """Parent of several pools, until a signal drains them. A supervisor that dies is restarted, the others stay up.

    Args:
        grace_s: Seconds that running tasks may take to end once the pools drain.
        companion: A process to run beside the supervisors.
        history: Runs the history writer until a signal stops it; in a process that is restarted like a supervisor.
        own_row: Row in which a parent of this one reads whether all pools are ready.
        replaces: Process ids of parents whose pools these replace one by one; ``None`` where no reloader runs.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        grace_s: float = GRACE_S,
        companion: Companion | None = None,
        history: Callable[[], int] | None = None,
        own_row: ChildRow | None = None,
        replaces: Sequence[int] | None = None,
    ) -> None:
        self._parts = _parts(pools)
        if replaces is not None:  # gevent pools load anew, which takes seconds: the others are replaced before
            self._parts = tuple(sorted(self._parts, key=lambda part: part[0].kind == "gevent"))
        self._companion = companion
        self._history = history
        self._own_row = own_row
        self._grace_s = grace_s
        count = len(self._parts) + (history is not None)
        self._table = ChildTable.create(count)
        self._ready = False
        self._unclean = False
        self._kill_at_s: float | None = None
        self._heartbeats = Heartbeats(hung_s=HUNG_S, boot_s=BOOT_S)
        self._look_at_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._signals = signals_of_parent(below=own_row is not None)
        spare = 0 if replaces is None else count
        self._process_set = ProcessSet(self._selector, count - spare, spare=spare, start=self._start, ended=self._ended)
        titles = [*map(_title, self._parts), ""]
        self._replacement = (
            None if replaces is None else Replacement(self._process_set, self._table.rows, titles[:count], replaces)
        )

    def run(self) -> int:
        """Keep the supervisors running; return 0 after a drain, 70 when a process had to be killed for it."""
        name_process("pools" if self._own_row is None else GREENLETS)
        prepare_to_fork()
        if self._companion is not None:
            self._companion.start(self._close_inherited)
        self._selector.register(self._signals.read_fd, selectors.EVENT_READ, lambda: None)
        while True:
            self._handle_signals(self._signals.take())
            self._process_set.work()
            self._replace_hung()
            if self._replacement is not None and not self._process_set.stopping:
                self._replacement.work()
            if self._is_over():
                break
            self._check_ready()
            for key, _ in self._selector.select(self._sleep_s()):
                key.data()
        if self._companion is not None:
            self._companion.finish()
        if self._own_row is None:
            logger.info("pools: all drained" if not self._unclean else "pools: stopped, not all were drained")
        return EX_CRASHED if self._unclean else EX_OK

    def _replace_hung(self) -> None:
        """Kill supervisors that were stopped or hang, so that they are started again; beat for the parent of this one.

        The history writer has no heartbeat: its calls of the database may take long.
        """
        if (now_s := time.monotonic()) < self._look_at_s or self._process_set.stopping:
            return
        self._look_at_s = now_s + LOOK_S
        if self._own_row is not None:
            self._own_row.beat()
        watched = {each.pid: each for each in self._process_set.running if not self._is_history(each.index)}
        silent = self._heartbeats.silent({pid: self._table.rows[each.index - 1] for pid, each in watched.items()})
        for pid, silent_s in silent:
            logger.error("%s does nothing for %.0f s; it is killed", self._named(watched[pid].index, pid), silent_s)
            send(watched[pid], signal.SIGKILL)

    def _named(self, index: int, pid: int) -> str:
        part = self._parts[index - 1]
        kind = "supervisor" if len(part) == 1 else "parent"
        return f"pool {', '.join(pool.name for pool in part)}: its {kind} (pid {pid})"

    def _is_over(self) -> bool:
        if self._process_set.stopping:
            return not self._process_set.running
        return self._replacement is not None and self._replacement.over

    def _handle_signals(self, signals: list[int]) -> None:
        for signum in signals:
            if signum == signal.SIGCHLD:
                continue
            if signum == signal.SIGUSR1:
                for process in self._process_set.running:
                    send(process, signum)
                continue
            if signum == signal.SIGHUP and self._replacement is not None:
                self._replacement.cancel()
                continue
            if signum == signal.SIGQUIT or (self._process_set.stopping and self._own_row is None):
                # SIGQUIT, not a second SIGTERM: a process manager that signals every process must not cut the drain
                # short.
                self._process_set.stop(signal.SIGQUIT)
            elif not self._process_set.stopping:
                if self._companion is not None:
                    self._companion.pools_drain()
                if self._own_row is not None:
                    self._own_row.retired = True
                self._kill_at_s = time.monotonic() + self._grace_s + KILL_MARGIN_S
                self._process_set.stop(signal.SIGTERM)
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s:
            self._kill_at_s = None
            self._process_set.stop(signal.SIGKILL)

    def _start(self, index: int) -> int:
        table = self._table
        row = table.rows[index - 1]
        row.clear()
        if self._is_history(index) and self._history is not None:
            row.ready = True  # nothing waits for it
            return fork(self._history, title="history", close_inherited=[self._close_inherited])
        part = self._parts[index - 1]

        def run() -> int:
            if len(part) > 1:
                os.set_inheritable(table.fd, True)
                names = json.dumps([pool.name for pool in part])
                arguments = [names, str(self._grace_s), str(table.fd), str(len(table.rows)), str(index)]
                execute("switchyard.workers.group.gevent_group", arguments)
            return Supervisor(part[0], grace_s=self._grace_s, own_row=row).run()

        return fork(run, title=_title(part), close_inherited=[self._close_inherited])

    def _ended(self, index: int, pid: int, status: int) -> bool:
        _, description = describe_exit(status)
        process = self._process_set.processes[index - 1]
        if self._replacement is not None and self._table.rows[index - 1].retired:
            process.wanted = False  # a newer parent has drained it
        if self._process_set.stopping or not process.wanted:
            self._unclean = self._unclean or status != 0
        elif self._is_history(index):
            logger.error("the history writer (pid %d) %s; it is started again", pid, description)
            return False  # with backoff: its database may be broken
        else:
            logger.error("%s %s; it is started again", self._named(index, pid), description)
        return self._table.rows[index - 1].read().ready

    def _is_history(self, index: int) -> bool:
        return index > len(self._parts)

    def _close_inherited(self) -> None:
        self._selector.close()
        self._process_set.close_inherited()
        self._signals.close()

    def _check_ready(self) -> None:
        if not self._ready and all(row.read().ready for row in self._table.rows):
            self._ready = True
            if self._own_row is None:
                logger.info("pools: all ready")
            else:
                self._own_row.ready = True

    def _sleep_s(self) -> float | None:
        waits = [] if self._ready else [POLL_READY_S]
        if not self._process_set.stopping:
            waits.append(max(self._look_at_s - time.monotonic(), 0.0))
        next_start_s = self._process_set.seconds_to_next()
        if next_start_s < math.inf:
            waits.append(max(next_start_s, 0.0))
        if self._kill_at_s is not None:
            waits.append(max(self._kill_at_s - time.monotonic(), 0.0))
        return min(waits, default=None)


def _title(part: Sequence[Pool]) -> str:
    return f"pool {part[0].name}" if len(part) == 1 else GREENLETS


def _parts(pools: Sequence[Pool]) -> tuple[tuple[Pool, ...], ...]:
    """Return the pools of each forked process: one, but for gevent pools, which share a parent that loads once.

    The gevent pools come first: they load while the others start.
    """
    greenlets = tuple(pool for pool in pools if pool.kind == "gevent")
    others = tuple((pool,) for pool in pools if pool.kind != "gevent")
    # Where the kernel does not end orphans, a parent in between would outlive a killed one.
    if len(greenlets) > 1 and not is_patched() and sys.platform == "linux":
        return greenlets, *others
    return *((pool,) for pool in greenlets), *others
