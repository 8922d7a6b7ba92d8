"""Events of the running demo, newest last, for the terminal and the log."""

from __future__ import annotations

import datetime
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

KEPT_LINES = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One event. ``tone`` is ``plain``, ``good``, ``bad`` or ``wait``."""

    at: datetime.datetime
    text: str
    tone: str = "plain"


class Feed:
    """Thread-safe list of the last 200 lines.

    Args:
        print_line: Called with each line's text; ``None`` prints nothing.
    """

    def __init__(self, print_line: Callable[[str], None] | None = None) -> None:
        self.print_line = print_line
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)
        self._lock = threading.Lock()

    def add(self, text: str, tone: str = "plain") -> None:
        """Add one line."""
        with self._lock:
            self._lines.append(Line(datetime.datetime.now().astimezone(), text, tone))
            printed = self.print_line
        if printed is not None:
            printed(text)

    def last(self, count: int) -> list[Line]:
        """Return the newest lines, newest last."""
        with self._lock:
            return list(self._lines)[-count:]
