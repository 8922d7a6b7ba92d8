"""Standard output and error that stop nobody: lines that no reader takes are dropped and counted."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from dramatiq.threading import is_gevent_active

# A reader that is only busy takes a line within this time; a supervisor that waits as long renews its leases in time.
WAIT_S = 1.0


def never_wait_for_readers() -> None:
    """Have ``sys.stdout`` and ``sys.stderr`` of this process, and of its forks, wait for no reader and never fail."""
    # The objects stay the same, because handlers of logs keep them; those that a project replaced are left alone.
    for stream, own in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)):
        if isinstance(stream, io.TextIOWrapper) and stream is own and not stream.closed:
            fd, kept = stream.fileno(), {"encoding": stream.encoding, "errors": stream.errors}
            with contextlib.suppress(OSError):
                stream.flush()
            stream.detach()
            stream.__init__(PatientOutput(fd), **kept, line_buffering=True)  # type: ignore[misc]


class PatientOutput(io.RawIOBase):
    """Writes to a descriptor that never fail, and wait for a second, or not at all after a line was dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._dropped = 0
        self._write, self._most_bytes = _non_blocking(fd)
        self._select = _select()

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write, or drop what cannot be written."""
        text = bytes(data)
        try:
            if self._dropped:
                self._put(b"\n[switchyard: nobody read this output, %d lines dropped]\n" % self._dropped, 0.0)
                self._dropped = 0
            self._put(text, WAIT_S)
        except OSError:  # no room, no reader any more, a full disk
            self._dropped += text.count(b"\n")
        return len(text)

    def _put(self, text: bytes, wait_s: float) -> None:
        deadline_s = time.monotonic() + wait_s
        while text:
            if not self._select([], [self._fd], [], max(deadline_s - time.monotonic(), 0.0))[1]:
                raise BlockingIOError
            with contextlib.suppress(BlockingIOError):  # another process was quicker
                text = text[self._write(text[: self._most_bytes]) :]


def _select() -> Callable[..., Any]:
    """Return the ``select`` of Python: gevent's refuses to wait in its hub, where interrupts of tasks are logged."""
    if not is_gevent_active():
        return select.select
    from gevent.monkey import get_original

    return cast("Callable[..., Any]", get_original("select", "select"))


def _non_blocking(fd: int) -> tuple[Callable[[bytes], int], int]:
    """Return a function that writes without blocking, and how many bytes it may be given."""
    # The descriptor itself is shared with other programs, which would not expect it to be non-blocking.
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return partial(os.write, fd), sys.maxsize
    with contextlib.suppress(OSError):
        own = os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return partial(os.write, own), sys.maxsize
    # A socket, or a pipe of another user: so much has room once there is some.
    return partial(os.write, fd), select.PIPE_BUF
