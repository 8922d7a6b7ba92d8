"""Lines about jobs in the log of the pools: whoever sent them, also from another terminal."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

# Lines of one look at the log; a burst of more is summed up in one.
MOST_LINES = 6
MOST_BYTES = 1_000_000
# End of an attempt, as middleware.logs writes it.
ENDS = ("succeeded", "retried", "dead", "cancelled", "expired", "parked until a worker knows it")
COLOR = re.compile(r"\x1b\[[\d;]*m")
EVENT = re.compile(rf"^\S+ \[\w+ *\] (?P<end>{'|'.join(ENDS)})(?: \(.*?\))? +\[[\w.]+\] *(?P<fields>.*)$")
FIELD = re.compile(r"(\w+)=('[^']*'|\"[^\"]*\"|\S+)")
# Lines of the pools about themselves and the code.
NEWS = re.compile(
    r"(reload: .*?|switchyard: (?:refused|warning).*|actor \S+: sent inside a transaction .*?) *(?:\[[\w.]+\])?$"
)


class JobLines:
    """Reader of the pools' log, from its present end on."""

    def __init__(self, log: Path, say: Callable[[str], object]) -> None:
        self._log, self._say = log, say
        self._place = self._size()
        self._rest = b""

    def read(self, known: Iterable[str] = ()) -> None:
        """Say a line for each new end of an attempt but those of ``known`` jobs, and for what the pools say."""
        left_out = set(known)
        found = [line for text in self._new_lines() if (line := line_of(text, left_out))]
        for line in found[:MOST_LINES]:
            self._say(line)
        if len(found) > MOST_LINES:
            self._say(f"and {len(found) - MOST_LINES} more, see {self._log}")

    def _new_lines(self) -> list[str]:
        size = self._size()
        if size < self._place:  # a new log
            self._place, self._rest = 0, b""
        self._place = max(self._place, size - MOST_BYTES)
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


def line_of(text: str, left_out: set[str]) -> str:
    """Return the demo's line for one of the log; "" for most."""
    if (event := EVENT.match(text)) is None:
        return news[1] if (news := NEWS.search(text)) is not None else ""
    fields = {name: value.strip("'\"") for name, value in FIELD.findall(event["fields"])}
    job_id = fields.get("job_id", "")
    if job_id in left_out:
        return ""
    took = f" in {int(fields['duration_ms']):,} ms" if fields.get("duration_ms", "").isdigit() else ""
    cause = " ".join(fields[name] for name in ("reason", "raised", "error") if fields.get(name))
    return f"{fields.get('actor', '?')} {job_id}: {event['end']}{took}" + (f" ({cause})" if cause else "")
