"""Metrics files of a pool's processes, in ``<PROMETHEUS_MULTIPROC_DIR>/<pool>``.

The files of an earlier run are removed at the start, or its counts would be added to the new ones. Those of a child
that ended are folded into one file for all of them: a thousand children leave no more files than one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from switchyard.workers.metrics.restoring import FIRST_BYTES, LOCK, VARIABLE, allocate, name_files

# Kinds whose values add up. Prometheus-client names a file <kind>_<pid>.db.
ADDED_UP = ("counter", "histogram", "summary")
FOLDING = "folding"
# A scrape takes about 10 ms. One that hangs must not block a supervisor, nor the other way round.
TRY_AGAIN_S = 0.05
AT_MOST_S = 2.0

logger = logging.getLogger("switchyard.workers")


class EndedChildren:
    """Files of ended children, whose metrics are folded into the total before the files are removed.

    Between the two steps both would count, so that the folder must not be read meanwhile; see :func:`undisturbed`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: dict[int, float] = {}

    def add(self, pid: int) -> None:
        """Note a process that has ended."""
        self._pids[pid] = time.monotonic()

    def fold(self) -> float:
        """Fold the files of ended processes, a few milliseconds each; return the seconds until the next call is due."""
        if not self._pids:
            return math.inf
        with contextlib.ExitStack() as lock:
            free = _lock(self._folder, fcntl.LOCK_EX, lock)
            for pid, ended_s in list(self._pids.items()):
                if free or time.monotonic() - ended_s > AT_MOST_S:
                    fold(self._folder, pid)
                    del self._pids[pid]
        return TRY_AGAIN_S if self._pids else math.inf


@contextlib.contextmanager
def undisturbed(folders: Iterable[Path]) -> Iterator[None]:
    """Prevent folding in some folders while they are read. One that is not free within 2 s is read without a lock."""
    until_s = time.monotonic() + AT_MOST_S
    with contextlib.ExitStack() as locks:
        for folder in folders:
            while not _lock(folder, fcntl.LOCK_SH, locks) and time.monotonic() < until_s:
                time.sleep(TRY_AGAIN_S / 10)
        yield


def _lock(folder: Path, how: int, until: contextlib.ExitStack) -> bool:
    """Lock a folder until the stack is left, if it is free. One that this process may not lock counts as free."""
    try:
        lock = os.open(folder / FOLDING, os.O_RDONLY | os.O_CREAT, 0o600)
    except OSError:
        return True
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    until.callback(os.close, lock)
    return True


def fold(folder: Path, pid: int) -> None:
    """Add the metrics of an ended process to the total, and remove its files. Takes a few milliseconds."""
    for file in [*folder.glob(f"*_{pid}.db"), *folder.glob(f"*_{pid}-*.db")]:
        kind = file.name.partition("_")[0]
        if kind in ADDED_UP:
            try:
                _add(file, folder / f"{kind}_ended.db")
            except (OSError, RuntimeError, ValueError, struct.error) as error:  # it ended during a write
                logger.warning("metrics of an ended child are lost: %s: %s", file.name, error)
        file.unlink(missing_ok=True)


def _add(file: Path, total: Path) -> None:
    if not file.stat().st_size:
        return
    counted = list(MmapedDict.read_all_values_from_file(str(file)))
    allocate(total, FIRST_BYTES, free_bytes=file.stat().st_size)  # it grows by less
    totals = MmapedDict(str(total))
    try:
        for key, value, timestamp, _ in counted:
            totals.write_value(key, totals.read_value(key)[0] + value, timestamp)
    finally:
        totals.close()


def claim(base: Path, pool_name: str) -> tuple[Path, int]:
    """Claim a pool's folder, empty it, and make prometheus-client write there from now on.

    A second supervisor of the pool on the same machine, while the first drains for example, gets ``<pool>.2``.

    Returns:
        The folder, and the descriptor of its lock. The claim ends when that is closed.
    """
    attempt = 1
    while True:
        folder = base / (pool_name if attempt == 1 else f"{pool_name}.{attempt}")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            attempt += 1
            continue
        os.truncate(lock, 0)
        for left in folder.glob("*.db"):
            left.unlink()
        os.environ[VARIABLE] = str(folder)
        # Chosen when prometheus-client was imported: a host's process had no folder then.
        if values.ValueClass is values.MutexValue:
            values.ValueClass = values.MultiProcessValue()
        name_files()
        return folder, lock
