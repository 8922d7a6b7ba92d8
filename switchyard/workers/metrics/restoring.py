"""Metrics that survive the loss of their folder, and a full disk below it.

Children keep writing to the removed files, which nobody can read. The supervisor makes the folder again and writes the
number of the gap into its lock file; each child compares it every two seconds, and then starts new files. Counts since
the removal are lost, as in a restart; the gap is counted.

Prometheus-client maps sparse files: a write to a page for which the disk has no room ends the process (SIGBUS). So the
space is allocated before it is mapped, and a new series without room is kept in memory, where no scrape finds it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import operator
import os
import struct
import time
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK = "lock"
GAPS_FILE = "counter_gaps.db"
METRIC = "switchyard_metrics_gaps"
HELP = "Times that the pool's metrics folder was removed while it ran; counts of a few seconds are lost each time."
LOOK_EVERY_S = 2.0

logger = logging.getLogger("switchyard.workers")

# Size of a new file, which prometheus-client doubles; kept free in each, for the series that all threads begin at once.
FIRST_BYTES, FREE_BYTES = 1 << 16, 1 << 14
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_gap = [""]


class Name(dict[int, int | str]):
    """Name of this process in its files' names, under 0, where prometheus-client reads it for each value.

    Made when it is missing: after a fork, and after a gap. All values are then written into new files, whose space is
    allocated before. While there is none, the files before are used: of a child, those of its supervisor.

    Attributes:
        before: The name before.
        sizes: The sizes of this process's files, by the prefix of their names.
    """

    def __init__(self) -> None:
        self.before: int | str = 0
        self.sizes: dict[str, int] = {}
        self._gap = ""
        self._again_at_s = 0.0

    def __missing__(self, key: int) -> int | str:
        name = f"{os.getpid()}-{self._gap}" if self._gap else os.getpid()
        if not all(self._allocates(prefix, name, size) for prefix, size in self.sizes.items()):
            return self.before
        self[key] = name
        return name

    def forget(self, gap: str = "") -> None:
        """Have another name made."""
        self.before, self._gap, self._again_at_s = self.pop(0, self.before), gap, 0.0

    def has_room(self, prefix: str) -> bool:
        """Allocate space for another series, if there is too little; return whether there is enough."""
        name = self[0]
        return 0 in self and self._allocates(prefix, name, FIRST_BYTES, free_bytes=FREE_BYTES)

    def _allocates(self, prefix: str, name: int | str, size: int, *, free_bytes: int = 0) -> bool:
        if time.monotonic() < self._again_at_s:
            return False
        try:
            self.sizes[prefix] = allocate(_file(prefix, name), size, free_bytes=free_bytes)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._again_at_s = time.monotonic() + LOOK_EVERY_S
                logger.error("metrics: their folder has no room, new series are not counted: %s", error.strerror)
                return False
        return True  # also where the folder is gone, see FolderWatch


def allocate(file: Path, size: int, *, free_bytes: int = 0) -> int:
    """Allocate space for a file of prometheus-client, doubled while fewer bytes are free in it; return its size.

    Raises:
        OSError: there is no room; or no such folder.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    present, head = os.fstat(descriptor).st_size, os.pread(descriptor, 4, 0)
    try:
        size = max(size, present)
        while (struct.unpack("i", head)[0] if len(head) == 4 else 0) + free_bytes > size:
            size *= 2
        if size > present and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        return size
    except OSError:
        if not present:
            file.unlink(missing_ok=True)  # an empty file is none that a scrape can read
        raise
    finally:
        os.close(descriptor)


def _file(prefix: str, name: int | str) -> Path:
    return Path(os.environ.get(VARIABLE, "")) / f"{prefix}_{name}.db"


_name = Name()


def name_files() -> None:
    """Name this process's files so that they can be started anew. Does nothing in a process without files."""
    if values.ValueClass is values.MutexValue:
        return
    if not _name.before:
        os.register_at_fork(after_in_child=_name.forget)
        _name.before = os.getpid()
        values.ValueClass = _with_room(values.MultiProcessValue(partial(operator.getitem, _name, 0)))
    _gap[0] = _read_gap()


def keep_files() -> None:
    """Start new files if the folder was removed and made again."""
    gap = _read_gap()
    if gap != "" and gap != _gap[0]:
        _gap[0] = gap
        _name.forget(gap)  # the next value that changes has another one made, and opens files of that name


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
        allocate(self._folder / GAPS_FILE, FIRST_BYTES)
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


def _with_room(stored: Any) -> Any:
    """Return a class of values that are stored in files where there is room for another series, else in memory."""

    class Value(stored):
        def __new__(cls, typ: str, *args: Any, multiprocess_mode: str = "", **options: Any) -> Any:
            prefix = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
            return object.__new__(cls) if _name.has_room(prefix) else values.MutexValue(typ, *args, **options)

    return Value
