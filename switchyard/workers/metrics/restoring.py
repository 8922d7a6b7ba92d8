"""Metrics that come back by themselves when their folder was removed while the pool runs.

Children keep writing to the removed files, which nobody can read. The supervisor makes the folder again and writes the
number of the gap into its lock file; each child compares it every two seconds, and then starts new files. Counts since
the removal are lost, as in a restart; the gap is counted.
"""

from __future__ import annotations

import fcntl
import logging
import operator
import os
import time
from functools import partial
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK = "lock"
GAPS_FILE = "counter_gaps.db"
METRIC = "switchyard_metrics_gaps"
HELP = "Times that the pool's metrics folder was removed while it ran; counts of a few seconds are lost each time."
LOOK_EVERY_S = 2.0

logger = logging.getLogger("switchyard.workers")

# Name of this process in its files' names, in a list that prometheus-client reads for each value without a Python call.
_name: list[int | str] = [0]
_gap = [""]


def name_files() -> None:
    """Name this process's files so that they can be started anew. Does nothing in a process without files."""
    if values.ValueClass is values.MutexValue:
        return
    if not _name[0]:
        os.register_at_fork(after_in_child=_forked)
        _forked()
        values.ValueClass = values.MultiProcessValue(partial(operator.getitem, _name, 0))
    _gap[0] = _read_gap()


def keep_files() -> None:
    """Start new files if the folder was removed and made again."""
    gap = _read_gap()
    if gap != "" and gap != _gap[0]:
        _gap[0] = gap
        _name[0] = f"{os.getpid()}-{gap}"  # the next value that changes reads this, and opens files of that name


class FolderWatch:
    """A supervisor's folder of metrics, made again when it is gone.

    Args:
        lock: Descriptor of its locked lock file.
    """

    def __init__(self, folder: Path, pool_name: str, lock: int) -> None:
        self._folder = folder
        self._pool_name = pool_name
        self._lock = lock
        self._gaps = 0
        self._look_at_s = 0.0

    def look(self) -> None:
        """Make the folder again if it or its lock is gone; looks every two seconds."""
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        if (self._folder / LOCK).exists():
            return
        self._gaps += 1
        try:
            self._restore()
        except OSError as error:
            logger.error("pool %s: the metrics folder cannot be made again: %s", self._pool_name, error.strerror)
            self._gaps -= 1
            return
        logger.warning(
            "pool %s: the metrics folder was removed while the pool runs; made again, counts since then are lost",
            self._pool_name,
        )

    def close(self) -> None:
        os.close(self._lock)

    def _restore(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.db"):
            left.unlink(missing_ok=True)
        counted = MmapedDict(str(self._folder / GAPS_FILE))
        counted.write_value(mmap_key(METRIC, f"{METRIC}_total", ["pool"], [self._pool_name], HELP), self._gaps, 0.0)
        counted.close()
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, str(self._gaps).encode())  # last: children start new files as soon as they read it
        os.close(self._lock)
        self._lock = lock
        _gap[0] = str(self._gaps)


def gaps_of(folder: Path) -> float:
    """Return how often a pool's folder was removed while the pool ran."""
    try:
        return float(sum(value for _, value, _, _ in MmapedDict.read_all_values_from_file(str(folder / GAPS_FILE))))
    except OSError:
        return 0


def _read_gap() -> str:
    try:
        return (Path(os.environ.get(VARIABLE, "")) / LOCK).read_text()
    except OSError:  # the supervisor has not made it again yet
        return _gap[0]


def _forked() -> None:
    _name[0] = os.getpid()
