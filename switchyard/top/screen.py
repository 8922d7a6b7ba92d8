"""The live screen: paints what was read into a terminal with curses, and restores the terminal at every exit."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from switchyard.top.reading import PageReader, Reading
from switchyard.top.rendering import Line, body, rendered, verdict_text
from switchyard.top.session import TopSession, key_page
from switchyard.top.text_page import TextPage

STALE_S: Final = 10.0
POLL_MS: Final = 100
ESCAPE_MS: Final = 100  # an arrow's bytes may come apart on a slow line
HINTS: Final = "/ find   g page   j k row   Enter open   . pause   ? keys   q leave"
NAMES: Final = {
    curses.KEY_DOWN: "Down",
    curses.KEY_UP: "Up",
    curses.KEY_RIGHT: "Right",
    curses.KEY_LEFT: "Left",
    curses.KEY_NPAGE: "PageDown",
    curses.KEY_PPAGE: "PageUp",
    curses.KEY_ENTER: "Enter",
    curses.KEY_BACKSPACE: "Backspace",
}
CHARACTERS: Final = {"\n": "Enter", "\r": "Enter", "\x1b": "Escape", "\x7f": "Backspace", "\b": "Backspace"}
COLOURS: Final = {"red": curses.COLOR_RED, "yellow": curses.COLOR_YELLOW, "green": curses.COLOR_GREEN}
PLAIN: Final = str.maketrans({"×": "x", "–": "-", "…": "...", "“": '"', "”": '"', "›": ">", "·": "-"})


class SignalReceived(Exception):
    """A signal ends the screen.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def can_paint() -> bool:
    """Return whether input and output are a terminal whose cursor can be moved."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        curses.setupterm()
    except curses.error:
        return False
    return curses.tigetstr("cup") is not None


def run(interval_s: float) -> None:
    """Show the screen until the operator leaves it.

    Raises:
        SignalReceived: SIGTERM or SIGHUP came.
    """
    reader, session = PageReader(interval_s), TopSession()
    with _signals(), _kept_messages(), _terminal() as window:
        reader.start()
        screen = LiveScreen(window, reader, session)
        while not session.left:
            screen.paint()
            screen.wait_for_key()


class LiveScreen:
    """The terminal's window, with what was read and what the operator chose."""

    def __init__(self, window: Any, reader: PageReader, session: TopSession) -> None:
        self._window = window
        self._reader = reader
        self._session = session
        self._colours = _colours()
        self._plain = "utf" not in locale.nl_langinfo(locale.CODESET).lower()
        self._was_paused = False

    def wait_for_key(self) -> None:
        """Wait for a key for a tenth of a second, and do what it says."""
        key = _key(self._window)
        if not key:
            return
        height = max(self._window.getmaxyx()[0] - 6, 1)
        self._session.press(key, self._page(self._reader.reading), height)
        self._reader.show(self._session.place)
        paused = self._session.paused_at_s is not None
        if paused != self._was_paused:
            self._was_paused = paused
            self._reader.pause(paused=paused)

    def paint(self) -> None:
        """Paint everything; curses sends what differs."""
        height, width = self._window.getmaxyx()
        reading = self._reader.reading
        self._window.erase()
        head = self._head(reading, width)[: max(height - 3, 1)]
        foot = height - 1
        page = key_page() if self._session.keys_shown else self._page(reading)
        for y, line in enumerate(head):
            self._put(y, line, width)
        self._paint_page(page, len(head), foot, width)
        self._put(foot, [Segment(self._foot(), Style(dim=not self._session.message))], width)
        self._window.refresh()

    def _page(self, reading: Reading) -> TextPage | None:
        return reading.page if reading.place == self._session.place else None

    def _paint_page(self, page: TextPage | None, top: int, foot: int, width: int) -> None:
        room = foot - top
        if room <= 0:
            return
        if page is None:
            self._put(top, [Segment("Reading…", Style(dim=True))], width)
            return
        chosen = self._session.chosen[-1]
        at = None if self._session.keys_shown else self._session.row_of(page)
        lines, row_lines = body(page, width, at)
        first = 0 if self._session.keys_shown else min(chosen.line, max(len(lines) - room, 0))
        if at is not None:
            line = row_lines[at]
            first = line if line < first else line - room + 1 if line >= first + room else first
        if not self._session.keys_shown:
            chosen.line = first
        for y, line_of_page in enumerate(lines[first : first + room]):
            self._put(top + y, line_of_page, width)

    def _head(self, reading: Reading, width: int) -> list[Line]:
        page = self._page(reading)
        title = "Keys" if self._session.keys_shown else page.title if page else "Reading…"
        age, stale = self._age(reading)
        right = f"{age}   {datetime.now(UTC):%H:%M:%S} UTC"
        left = set_cell_size(f"Switchyard · {title}", max(width - cell_len(right) - 2, 0))
        lines: list[Line] = [[Segment(left, Style(bold=True)), Segment(f"  {right}", Style(bold=stale, dim=not stale))]]
        if reading.room is not None:
            lines += rendered(verdict_text(reading.room.verdict), width)[:4]
        return [*lines, []]

    def _age(self, reading: Reading) -> tuple[str, bool]:
        if reading.room is None:
            return ("Reading" if not reading.failure else "Not read"), False
        now_s = time.monotonic()
        if self._session.paused_at_s is not None:
            return f"Paused {now_s - self._session.paused_at_s:.0f} s ago", True
        age_s = now_s - reading.at_s
        return (
            (f"Stale, last answer {age_s:.0f} s ago", True) if age_s > STALE_S else (f"Live, {age_s:.0f} s ago", False)
        )

    def _foot(self) -> str:
        session = self._session
        if session.asked is not None:
            return f"Find: {session.asked}_"
        if session.message:
            return session.message
        failure = self._reader.reading.failure
        return f"Not read: {failure}" if failure else HINTS

    def _put(self, y: int, line: Line, width: int) -> None:
        x = 0
        for segment in line:
            text = segment.text.rstrip("\n")
            text = text.translate(PLAIN) if self._plain else text
            left = width - x - (y == self._window.getmaxyx()[0] - 1)  # the last cell would scroll the screen
            if left <= 0:
                return
            if cell_len(text) > left:
                text = set_cell_size(text, left)
            with contextlib.suppress(curses.error):  # the window became smaller meanwhile
                self._window.addstr(y, x, text, self._attribute(segment.style))
            x += cell_len(text)

    def _attribute(self, style: Style | None) -> int:
        if style is None:
            return curses.A_NORMAL
        found = self._colours.get(style.color.name, 0) if style.color is not None else 0
        for wanted, attribute in (
            (style.bold, curses.A_BOLD),
            (style.dim, curses.A_DIM),
            (style.reverse, curses.A_REVERSE),
        ):
            found |= attribute if wanted else 0
        return found


def _key(window: Any) -> str:
    """Return the next key, or "" when none came."""
    try:
        found = window.get_wch()
    except curses.error:
        return ""
    if isinstance(found, int):
        return NAMES.get(found, "")
    return CHARACTERS.get(found, found if found.isprintable() else "")


def _colours() -> dict[str, int]:
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return {}
    curses.start_color()
    background = curses.COLOR_BLACK
    with contextlib.suppress(curses.error):
        curses.use_default_colors()
        background = -1
    for number, colour in enumerate(COLOURS.values(), start=1):
        curses.init_pair(number, colour, background)
    return {name: curses.color_pair(number) for number, name in enumerate(COLOURS, start=1)}


@contextlib.contextmanager
def _terminal() -> Iterator[Any]:
    """Set the terminal up, and restore it whatever happens."""
    locale.setlocale(locale.LC_ALL, "")
    curses.set_escdelay(ESCAPE_MS)
    window = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        window.timeout(POLL_MS)
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        yield window
    finally:
        for restore in (lambda: window.keypad(False), lambda: curses.curs_set(1), curses.nocbreak, curses.echo):
            with contextlib.suppress(curses.error):
                restore()
        curses.endwin()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that the terminal is restored."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SignalReceived(number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _kept_messages() -> Iterator[None]:
    """Keep what is written to standard error while the screen is painted, and write it afterwards."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            while chunk := kept.read(1 << 16):
                os.write(2, chunk)
