"""Where a pool's processes keep the files of their metrics: ``<PROMETHEUS_MULTIPROC_DIR>/<pool>``.

The files of a pool that ran before are removed at its start, or its counts would be added to the new ones.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


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
