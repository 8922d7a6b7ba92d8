"""A wrong clock for a process and all its children, by libfaketime: Python, its C modules and programs see it.

``bin/test`` fetches Debian's libfaketime. Where it cannot be had, :mod:`tests.chaos.hosts_yard.settings` sets the clock
with time_machine, for Python code alone and from the moment the settings load.

Tried with libfaketime 0.9.10 (Debian 12) and Python 3.11, each with waits of 0.5 s:

- Without ``FAKETIME_DONT_FAKE_MONOTONIC`` waits of threads hang: they reckon with a monotonic clock that is faked.
- With it ``time.sleep`` alone fails, with ``EINVAL``, whatever ``FAKETIME_FORCE_MONOTONIC_FIX`` and
  ``FAKETIME_NO_CACHE`` say: of ``clock_nanosleep`` until an absolute time it takes an offset off that the monotonic
  clock does not have. All else is right: locks, conditions, queues, semaphores, ``select``, ``poll``, ``epoll``,
  ``sigtimedwait`` and ``setitimer``. So :mod:`sitecustomize` in this folder has ``time.sleep`` wait in ``select``,
  before anything else is imported.
- The library in the wheel ``libfaketime`` 3.0.1 leaves ``clock_nanosleep`` alone, and ``sem_timedwait`` as well:
  semaphores of ``multiprocessing`` return at once or wait for the offset. It is built for x86-64 alone.
"""

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

NAME: Final = "libfaketimeMT.so.1"


@cache
def library() -> Path | None:
    """Return libfaketime: fetched by ``bin/test``, or installed; ``None`` where this machine has none."""
    return next((path for path in _places() if path.is_file()), None)


def _places() -> Iterator[Path]:
    yield Path(sys.prefix) / "lib" / "faketime" / NAME
    yield from Path("/usr/lib").glob(f"*/faketime/{NAME}")


def environment(ahead_s: int) -> dict[str, str]:
    """Return what a process needs in its environment to have a clock that is so far ahead; nothing for a right one."""
    found = library()
    if found is None or not ahead_s:
        return {}
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "LD_PRELOAD": str(found), "FAKETIME": f"{ahead_s:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": os.pathsep.join(paths),
    }  # fmt: skip
