"""Parts that are forked from the set-up process, so that Django is loaded once and its memory is shared.

The set-up process forks and ends; its orphans come to the demo, which has asked the kernel for them. A part that dies
later is started anew from its command, see ``CommandPart``.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from apps.platform.workers.shared.parent_death import die_with_parent

ADOPTION_POLL_S = 0.001
STANDARD_STREAMS = (1, 2)


def fork_parts(jobs: Mapping[str, Callable[[], Any]], logs: Path, keep: Mapping[str, set[int]]) -> dict[str, int]:
    """Fork a process for each job and return their pids. In a forked process this does not return.

    Call it from the main thread of a process that has no other, and end that process at once.

    Args:
        jobs: Name of a part -> what it runs. ``SystemExit`` says its exit code.
        logs: Folder of the logs; a part's output goes to ``<name>.log``.
        keep: Name of a part -> descriptors that only this part may have.
    """
    adopter_pid, parent_pid = os.getppid(), os.getpid()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it shares
    pids = {}
    for name, job in jobs.items():
        pid = os.fork()
        if pid == 0:
            others = set().union(*keep.values()) - keep.get(name, set())
            _become(name, logs, others, parent_pid, adopter_pid)
            job()
            sys.exit(0)
        pids[name] = pid
    return pids


def _become(name: str, logs: Path, descriptors: set[int], parent_pid: int, adopter_pid: int) -> None:
    os.setsid()
    with (logs / f"{name}.log").open("ab") as log:
        for stream in STANDARD_STREAMS:
            os.dup2(log.fileno(), stream)
    for descriptor in descriptors:
        os.close(descriptor)
    setproctitle(f"switchyard: {name}")
    while os.getppid() == parent_pid:
        time.sleep(ADOPTION_POLL_S)
    end_with_adopter = die_with_parent(signal.SIGTERM, parent_pid=adopter_pid)
    if end_with_adopter is not None:
        end_with_adopter()
