"""Where a pool's processes keep the files of their metrics: ``<PROMETHEUS_MULTIPROC_DIR>/<pool>``.

The files of a pool that ran before are removed at its start, or its counts would be added to the new ones. Those of a
child that ended are added to one for all that did: a thousand children leave no more files than one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

# Kinds whose values add up. Prometheus-client names a file <kind>_<pid>.db.
ADDED_UP = ("counter", "histogram", "summary")
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

logger = logging.getLogger("switchyard.workers")


def fold(folder: Path, pid: int) -> None:
    """Add what an ended process counted to what those before it did, and remove its files. Takes a few milliseconds.

    Call it from one process, that also reads the metrics: in between, both would count.
    """
    for file in folder.glob(f"*_{pid}.db"):
        kind = file.name.partition("_")[0]
        if kind in ADDED_UP:
            try:
                _add(file, folder / f"{kind}_ended.db")
            except (OSError, RuntimeError, ValueError, struct.error) as error:  # it ended while it wrote
                logger.warning("what a child counted is lost: %s: %s", file.name, error)
        file.unlink(missing_ok=True)


def _add(file: Path, total: Path) -> None:
    if not file.stat().st_size:
        return
    counted = list(MmapedDict.read_all_values_from_file(str(file)))
    totals = MmapedDict(str(total))
    try:
        for key, value, timestamp, _ in counted:
            totals.write_value(key, totals.read_value(key)[0] + value, timestamp)
    finally:
        totals.close()


def claim(base: Path, pool_name: str) -> tuple[Path, int]:
    """Take a pool's folder, empty it, and have prometheus-client write there from now on.

    A second supervisor of the pool on the same machine, while the first drains for example, gets ``<pool>.2``.

    Returns:
        The folder, and the descriptor of its lock. The folder is ours until that is closed.
    """
    attempt = 1
    while True:
        folder = base / (pool_name if attempt == 1 else f"{pool_name}.{attempt}")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            attempt += 1
            continue
        for left in folder.glob("*.db"):
            left.unlink()
        os.environ[VARIABLE] = str(folder)
        return folder, lock
