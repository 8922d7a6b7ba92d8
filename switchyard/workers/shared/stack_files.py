"""Stack dumps of a child's threads: written at SIGUSR1, and when the child crashes in C.

The C signal handler writes the dump, so that a child whose interpreter hangs in C writes one too.
"""

from __future__ import annotations

import faulthandler
import re
import signal
from pathlib import Path
from types import FrameType

from switchyard.conf import switchyard_settings
from switchyard.workers.shared.fork import is_patched

FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)$', re.MULTILINE)
SHOWN_FRAMES = 3


def stacks_file(pool_name: str, pid: int) -> Path:
    """Return the file for a child's dumps, in the state folder."""
    return Path(switchyard_settings().state_dir) / "stacks" / f"{pool_name}-{pid}.txt"


def dump_on_signal(path: Path) -> None:
    """Have this process append its stacks to a file at SIGUSR1, and when it crashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    patched = is_patched()
    if patched:
        # C finds the stacks of threads alone; only gevent knows the greenlets that wait.
        def print_greenlets(signum: int, frame: FrameType | None) -> None:
            from gevent.util import print_run_info

            print_run_info(file=file)
            file.flush()

        signal.signal(signal.SIGUSR1, print_greenlets)
    faulthandler.enable(file)
    # Chained to no earlier handler, it would kill the process.
    faulthandler.register(signal.SIGUSR1, file, chain=patched)


def crash_location(path: Path) -> str:
    """Return the frames in which a child crashed in C, and remove its file; empty without a crash dump."""
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except FileNotFoundError:
        return ""
    _, fatal, after = text.rpartition("Fatal Python error: ")
    current = after.partition("Current thread")[2] or after
    frames = [f"{Path(found['file']).name}:{found['line']} {found['function']}" for found in FRAME.finditer(current)]
    return " < ".join(frames[:SHOWN_FRAMES]) if fatal else ""
