"""Where every thread of a child stands: written when it is asked for, and when a child crashes in C.

The dump is made by the signal handler itself, so it comes also from a child whose interpreter hangs in C.
"""

from __future__ import annotations

import faulthandler
import re
import signal
import sys
from pathlib import Path
from types import FrameType

from apps.platform.conf import switchyard_settings

FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)$', re.MULTILINE)
SHOWN_FRAMES = 3


def stacks_file(pool_name: str, pid: int) -> Path:
    """Return the file for a child's dumps, in the state folder."""
    return Path(switchyard_settings().state_dir) / "stacks" / f"{pool_name}-{pid}.txt"


def dump_on_signal(path: Path) -> None:
    """Have this process append its stacks to a file at SIGUSR1, and when it crashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    patched = "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("threading")
    if patched:
        # Only threads have stacks that C can find; greenlets that wait are known to gevent alone.
        def print_greenlets(signum: int, frame: FrameType | None) -> None:
            from gevent.util import print_run_info

            print_run_info(file=file)
            file.flush()

        signal.signal(signal.SIGUSR1, print_greenlets)
    faulthandler.enable(file)
    # Chained to itself it would kill the process where nothing was set before.
    faulthandler.register(signal.SIGUSR1, file, chain=patched)


def last_words(path: Path) -> str:
    """Return where a child crashed, and remove its file; empty for one that did not, or could not say."""
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except FileNotFoundError:
        return ""
    _, fatal, after = text.rpartition("Fatal Python error: ")
    current = after.partition("Current thread")[2] or after
    frames = [f"{Path(found['file']).name}:{found['line']} {found['function']}" for found in FRAME.finditer(current)]
    return " < ".join(frames[:SHOWN_FRAMES]) if fatal else ""
