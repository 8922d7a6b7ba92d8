"""A program in a real pseudo-terminal, whose screen a test reads."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.waiting import wait_for

# Sequences that a program sends: move, erase, attributes, character sets, modes, padding.
_ESCAPE = re.compile(
    r"\x1b\[(?P<numbers>[?\d;]*)(?P<act>[A-Za-z])|\x1b[()][A-Z0-2]|\x1b[=>78MDEHc]|\$<\d+/?>", re.DOTALL
)


class Terminal:
    """A command in a terminal of its own.

    Args:
        command: Program and arguments.
        size: Lines and columns.
    """

    def __init__(
        self, command: list[str], *, environment: Mapping[str, str], size: tuple[int, int] = (40, 120), cwd: Path
    ) -> None:
        self._lock = threading.Lock()
        self.raw = ""
        self._todo = ""
        self._size = size
        self._cells: list[list[str]] = []
        self._at = (0, 0)
        self._clear()
        self._master, self._slave = pty.openpty()
        self._set_size(size)
        self.before = termios.tcgetattr(self._slave)
        # A terminal that controls its process, so that it is told of a new size.
        self.process = subprocess.Popen(
            command, stdin=self._slave, stdout=self._slave, stderr=self._slave, cwd=cwd, env={**environment},
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._slave)
        self._reader.join(30)
        os.close(self._master)

    @property
    def text(self) -> str:
        with self._lock:
            return "\n".join("".join(line).rstrip() for line in self._cells)

    @property
    def restored(self) -> bool:
        """Whether the terminal has the modes that it had before: it echoes, and waits for whole lines."""
        return termios.tcgetattr(self._slave) == self.before

    def resize(self, lines: int, columns: int) -> None:
        """Give the terminal another size, of which its program is told."""
        with self._lock:
            self._size = (lines, columns)
            self._clear()
        self._set_size((lines, columns))

    def shows(self, pattern: str, timeout_s: float = 30.0) -> str:
        """Wait until the screen shows something; return the screen.

        Raises:
            AssertionError: it was not shown within the time, and what was.
        """
        try:
            wait_for(lambda: re.search(pattern, self.text), timeout_s, what=pattern)
        except AssertionError as error:
            raise AssertionError(f"{pattern!r} is not on the screen:\n{self.text}\n{self.raw[-2000:]!r}") from error
        return self.text

    def ends(self, timeout_s: float = 30.0) -> int:
        """Wait for the end of the program, and return its exit code; negative for a signal."""
        return self.process.wait(timeout_s)

    def _set_size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def _clear(self) -> None:
        lines, columns = self._size
        self._cells = [[" "] * columns for _ in range(lines)]

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                chunk = os.read(self._master, 1 << 16)
            except OSError:  # the other side is closed
                return
            if not chunk:
                return
            text = decoder.decode(chunk)
            with self._lock:
                self.raw += text
                self._todo += text
                self._interpret()

    def _interpret(self) -> None:
        at = 0
        while at < len(self._todo):
            letter = self._todo[at]
            if letter in "\x1b$":
                found = _ESCAPE.match(self._todo, at)
                if found is None and letter == "\x1b":
                    break  # the rest comes
                if found is not None:
                    self._escape(found)
                    at = found.end()
                    continue
            self._write(letter)
            at += 1
        self._todo = self._todo[at:]

    def _write(self, letter: str) -> None:
        line, column = self._at
        match letter:
            case "\r":
                self._at = (line, 0)
            case "\n":
                self._feed(line, column)
            case "\b":
                self._at = (line, max(column - 1, 0))
            case "\t":
                self._at = (line, (column // 8 + 1) * 8)
            case _ if letter.isprintable():
                if line < self._size[0] and column < self._size[1]:
                    self._cells[line][column] = letter
                self._at = (line, column + 1)

    def _escape(self, found: re.Match[str]) -> None:
        act, (line, column) = found["act"], self._at
        if not act or found["numbers"].startswith("?"):
            return
        numbers = [int(number or 0) for number in found["numbers"].split(";")]
        count = max(numbers[0], 1)
        match act:
            case "H" | "f":
                self._at = (count - 1, max(numbers[1], 1) - 1 if len(numbers) > 1 else 0)
            case "A" | "B":
                self._at = (max(line + (count if act == "B" else -count), 0), column)
            case "C" | "D":
                self._at = (line, max(column + (count if act == "C" else -count), 0))
            case "K" | "J":
                self._erase(act, numbers[0])

    def _feed(self, line: int, column: int) -> None:
        """Go one line down; on the last one, scroll."""
        if line == self._size[0] - 1:
            self._cells = [*self._cells[1:], [" "] * self._size[1]]
        else:
            self._at = (line + 1, column)

    def _erase(self, act: str, which: int) -> None:
        line, column = self._at
        if line < self._size[0]:
            start, end = {0: (column, self._size[1]), 1: (0, column + 1)}.get(which, (0, self._size[1]))
            self._cells[line][start:end] = [" "] * len(self._cells[line][start:end])
        if act == "J":
            for other in range(line + 1, self._size[0]) if which == 0 else range(self._size[0]) if which == 2 else ():
                self._cells[other] = [" "] * self._size[1]
