"""Lines about jobs in the log of the pools: whoever sent them, also from another terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from demo.sample.journal import Journal

# Lines of one look at the log; a burst of more is summed up in one.
MOST_LINES = 6
MOST_BYTES = 1_000_000
# End of an attempt, as middleware.logs writes it.
ENDS = ("succeeded", "retried", "dead", "cancelled", "expired", "parked until a worker knows it")
COLOR = re.compile(r"\x1b\[[\d;]*m")
EVENT = re.compile(rf"^\S+ \[\w+ *\] (?P<end>{'|'.join(ENDS)})(?: \(.*?\))? +\[[\w.]+\] *(?P<fields>.*)$")
FIELD = re.compile(r"(\w+)=('[^']*'|\"[^\"]*\"|\S+)")
# What the pools say of themselves and of the code.
NEWS = re.compile(
    r"(reload: .*?|switchyard: (?:refused|warning).*|actor \S+: sent inside a transaction .*?) *(?:\[[\w.]+\])?$"
)
# Beginning of a line of the log, and levels at which the traceback of a job may follow it.
LOGGED = re.compile(r"^\S+ \[(?P<level>\w+) *\] ")
WITH_TRACEBACK = frozenset({"warning", "error", "critical"})
# A traceback of the code that was loaded: its places, and its last line.
FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+)')
RAISED = re.compile(r"^[A-Za-z_][\w.]*(?:: .*)?$")
# What the project adds below a traceback.
REMEDY = re.compile(r"^\S+\.py:\d+: ")
NEW_POOLS_ENDED = "reload: the new pools ended"


class JobLines:
    """Reader of the pools' log, from its present end on.

    Args:
        journal: Jobs of the sample, which reports on them itself.
    """

    def __init__(self, log: Path, journal: Journal, say: Callable[[str], object]) -> None:
        self._log, self._journal, self._say = log, journal, say
        self._place = self._size()
        self._rest = b""
        self._frame = self._raised = ""
        self._in_job = False

    def read(self) -> None:
        """Say a line for each new end of an attempt, and for what the pools say of themselves."""
        known = {job.job_id for job in self._journal.all()}
        found = [line for text in self._new_lines() if (line := self._line(text, known)) is not None]
        for line in found[:MOST_LINES]:
            self._say(line)
        if len(found) > MOST_LINES:
            self._say(f"and {len(found) - MOST_LINES} more, see {self._log}")

    def _line(self, text: str, known: set[str]) -> str | None:
        if (logged := LOGGED.match(text)) is not None:
            self._in_job = logged["level"] in WITH_TRACEBACK
        if (event := EVENT.match(text)) is None:
            if (news := NEWS.search(text)) is None:
                self._note_traceback(text)
                return None
            said, raised = news[1], self._raised
            self._frame = self._raised = ""
            self._in_job = False
            if raised and said.startswith(NEW_POOLS_ENDED):
                said = f"{said}; {raised}"
            return said
        fields = {name: value.strip("'\"") for name, value in FIELD.findall(event["fields"])}
        job_id = fields.get("job_id", "")
        if job_id in known:
            return None
        took = f" in {int(fields['duration_ms']):,} ms" if fields.get("duration_ms", "").isdigit() else ""
        cause = " ".join(fields[name] for name in ("reason", "raised", "error") if fields.get(name))
        return f"{fields.get('actor', '?')} {job_id}: {event['end']}{took}" + (f" ({cause})" if cause else "")

    def _note_traceback(self, text: str) -> None:
        """Note where a traceback that passes by ends, and what was raised there; that of a job is none of the code."""
        if self._in_job:
            return
        if (frame := FRAME.match(text)) is not None:
            self._frame = f"{frame['file']}:{frame['line']}"
        elif self._frame and RAISED.match(text):
            self._raised, self._frame = f"{self._frame}: {text}", ""
        elif REMEDY.match(text):
            self._raised = text

    def _new_lines(self) -> list[str]:
        size = self._size()
        if size < self._place:  # a new log
            self._place, self._rest = 0, b""
        if size - self._place > MOST_BYTES:
            self._place, self._rest = size - MOST_BYTES, b""
        try:
            with self._log.open("rb") as log:
                log.seek(self._place)
                new = log.read(size - self._place)
        except OSError:
            return []
        self._place += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        return [COLOR.sub("", line.decode(errors="replace")) for line in lines]

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0
