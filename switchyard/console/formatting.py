"""Numbers and times as text for pages, commands and findings, times as operators write them, choices of a form."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from switchyard.broker.clock import EPOCH, datetime_of, now_ms
from switchyard.broker.errors import ActRefused
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.shapes import ActorPause, QueuePause
from switchyard.middleware.clock_comparison import compared_now

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
SPAN_UNITS = ((DAY_S * 1_000, "day"), (HOUR_S * 1_000, "h"), (MINUTE_S * 1_000, "min"), (1_000, "s"))
# A rounded span of fewer units is wrong by too much: 110 min are no 2 h.
MANY_UNITS = 10
# Names that are told with their numbers; the others are counted together.
NAMED = 2


def counted(count: int, noun: str, nouns: str = "") -> str:
    """Return a number with its noun: ``1 job``, ``2,000 jobs``; ``nouns`` where the plural has no plain s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def jobs_text(count: int, none: str = "0 jobs wait") -> str:
    """Return how many jobs wait, ``1 job waits``; ``none`` where none does."""
    return (f"{counted(count, 'job')} wait" + "s" * (count == 1)) if count else none


def choices(known: Iterable[tuple[str, str]], chosen: str) -> list[tuple[str, str, bool]]:
    """Return value, text and whether it is chosen; a chosen value that is not among the known ones comes last."""
    found = [(value, text, value == chosen) for value, text in known]
    return found if any(is_chosen for _, _, is_chosen in found) else [*found, (chosen, chosen, True)]


def cut(text: str, longest: int) -> str:
    """Return a text of at most so many characters; one that is cut ends with ``…``."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def most_common(counts: Counter[str]) -> str:
    """Return the two names that are there most often, and the others together: ``6 × export, 2 × others``."""
    first = counts.most_common(NAMED)
    others = counts.total() - sum(count for _, count in first)
    named = [f"{count:,} × {name}" for name, count in first]
    return ", ".join([*named, f"{others:,} × others"] if others else named)


def duration(ms: float) -> str:
    """Return a time span: ``11 ms``, ``3.8 s``, ``41 s``, ``1 min 02 s``, ``2 h 05 min``, ``3 days``."""
    if ms < 1_000:
        return f"{ms:.0f} ms"
    seconds = ms / 1_000
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02d} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02d} min"
    return counted(whole // DAY_S, "day")


def whole_duration(ms: int) -> str:
    """Return a configured time span in its largest unit without a fraction: ``80 ms``, ``90 s``, ``2 h``; ``1.5 s``."""
    for unit_ms, unit in ((3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if ms >= unit_ms and ms % unit_ms == 0:
            return f"{ms // unit_ms} {unit}"
    return f"{ms} ms" if ms < 1_000 else f"{ms / 1_000:,} s"


def rough_duration(ms: float, *, up: bool) -> str:
    """Return a time span rounded down or up: ``18 s``, ``43 min``, ``1 h 43 min``, ``20 h``, ``1 day 8 h``."""
    rounded = math.ceil if up else math.floor
    if ms < SPAN_UNITS[-1][0]:
        return f"{rounded(ms)} ms"
    first = next(n for n, (unit_ms, _) in enumerate(SPAN_UNITS) if ms >= unit_ms)
    steps_ms = [unit_ms for unit_ms, _ in SPAN_UNITS] + [SPAN_UNITS[-1][0]]
    step_ms = steps_ms[first if ms >= MANY_UNITS * steps_ms[first] else first + 1]
    whole_ms, parts = rounded(ms / step_ms) * step_ms, list[str]()
    for unit_ms, unit in SPAN_UNITS:
        number, whole_ms = divmod(whole_ms, unit_ms)
        if number:
            parts.append(counted(number, unit) if unit == "day" else f"{number} {unit}")
    return " ".join(parts)


def retries_text(retries: int | None, span_ms: tuple[int, int], *, speed: int = 1) -> str:
    """Return how often, and over which least and most time, a message is retried: ``5 retries over 3 h to 7 h 36 min``.

    ``speed`` is the yard's ``retry_speed``; one above 1 is added: ``…, 1,500 times as fast``.
    """
    if retries is None:
        return "retries without end"
    if not retries:
        return "no retries"
    shortest_ms, longest_ms = span_ms
    least, most = rough_duration(shortest_ms, up=False), rough_duration(longest_ms, up=True)
    number = counted(retries, "retry", "retries")
    text = f"{number} over {least}" if shortest_ms == longest_ms else f"{number} over {least} to {most}"
    return text if speed == 1 else f"{text}, {speed:,} times as fast"


def promise(objective_ms: int | None, done_objective_ms: int | None = None) -> str:
    """Return a queue's objectives: ``start in 80 ms``, ``start in 5 min, end in 1 h``, ``no promise``."""
    objectives = (("start", objective_ms), ("end", done_objective_ms))
    parts = [f"{verb} in {whole_duration(ms)}" for verb, ms in objectives if ms is not None]
    return ", ".join(parts) or "no promise"


def ago(moment: datetime) -> str:
    """Return the time since a moment, ``3.8 s ago``; ``in 3.8 s`` for a future one, ``just now`` within 1 s."""
    seconds = (timezone.now() - moment).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    return f"{duration(seconds * 1_000)} ago" if seconds > 0 else f"in {duration(-seconds * 1_000)}"


def iso(moment: datetime | int, timespec: str = "microseconds") -> str:
    """Return a moment, or milliseconds since the epoch, in ISO 8601 in UTC: ``2026-11-20T08:30:00.000000Z``."""
    at = datetime_of(moment) if isinstance(moment, int) else moment.astimezone(UTC)
    return at.isoformat(timespec=timespec).replace("+00:00", "Z")


def size(count_bytes: float) -> str:
    """Return bytes as ``118 MB`` or ``1.27 GB``."""
    if count_bytes >= 1_000_000_000:
        return f"{count_bytes / 1_000_000_000:.2f} GB"
    return f"{count_bytes / 1_000_000:.0f} MB"


def times(ratio: float) -> str:
    """Return a ratio to an objective: ``3.4 ×``, ``41 ×``."""
    return f"{ratio:.1f} ×" if ratio < 9.95 else f"{ratio:,.0f} ×"


def between(first: datetime, last: datetime) -> str:
    """Return two times of UTC to the minute: ``22 Nov 2026 03:11 to 04:05 UTC``, or one where they are the same."""
    began, ended = (f"{at.day} {at:%b %Y} {at:%H:%M}" for at in (first, last))
    if began == ended:
        return f"{began} UTC"
    return f"{began} to {ended.removeprefix(began[:-5]) if first.date() == last.date() else ended} UTC"


LONGEST: Final = timedelta(days=365)
_SPAN = re.compile(r"(\d{1,7})\s*(s|m|min|h|d)")
_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def unusable_end(text: str, why: str) -> ActRefused:
    """Return the error that the end of a pause is no time in the future."""
    remedy = "write a span (30m, 2h), a time of day in UTC (14:00) or ISO 8601"
    return ActRefused(f"until {text!r}", f"{why}; {remedy}", by_argument=True)


def parse_until(text: str, *, now: datetime | None = None) -> datetime:
    """Return the time that an operator means: ``30m``, ``2h``, ``14:00`` (the next one), or ISO 8601, all of UTC.

    ``ActRefused`` where it is none of these, over, or more than a year away.
    """
    text, now = text.strip(), now or compared_now()
    moment = _parse(text, now)
    if moment <= now:
        raise unusable_end(text, "it is over")
    if moment - now > LONGEST:
        raise unusable_end(text, "it is more than a year away")
    return moment


def _parse(text: str, now: datetime) -> datetime:
    if span := _SPAN.fullmatch(text):
        return now + min(timedelta(milliseconds=int(span[1]) * UNITS_MS[span[2]]), 2 * LONGEST)
    if of_day := _OF_DAY.fullmatch(text):
        today = now.astimezone(UTC).replace(hour=int(of_day[1]), minute=int(of_day[2]), second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)
    try:
        return moment_of(text)
    except ValueError as error:
        raise unusable_end(text, "it is not a time") from error


def moment_of(text: str) -> datetime:
    """Return the time of a text in ISO 8601, in UTC where it has no offset; ``ValueError`` where it is no time."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
UNITS_MS: Final = {"s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def time_ms(name: str, text: str) -> int | None:
    """Return a time in ms since the epoch, ``None`` for an empty text, or ``ValueError``. Without an offset it is UTC.

    Times before the epoch are the epoch, those after the year 9999 its end: no job is beyond them.
    """
    if not text:
        return None
    if ago := SPAN.fullmatch(text):
        return max(now_ms() - int(ago[1]) * UNITS_MS[ago[2]], 0)
    try:
        return min(max((moment_of(text) - EPOCH) // timedelta(milliseconds=1), 0), LARGEST)
    except (ValueError, OverflowError):
        remedy = "write 30m, 1h or 7d ago, or a time such as 2026-11-21T13:00:00Z"
        raise ValueError(f"{name}: {text!r:.100} is not a time; {remedy}") from None


def plain_values(row: object, *names: str) -> dict[str, Any]:
    """Return fields of an object as JSON values. Times are ISO 8601 in UTC."""
    values = {name: getattr(row, name) for name in names}
    return {
        name: value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
        for name, value in values.items()
    }


@dataclass(frozen=True, slots=True)
class PauseFacts:
    """Pause of a queue or of an actor, with its times; or an open circuit, with its probe and how often it opened."""

    since: datetime | None
    until: datetime | None
    by: str
    reason: str
    probe: str = ""
    times: int = 0

    @property
    def sentence(self) -> str:
        """Sentence of who paused it, since when, and why."""
        by = f" by {self.by}" if self.by else ""
        since = f", {ago(self.since)} ({self.since:%Y-%m-%d %H:%M:%S} UTC)" if self.since else ""
        if self.times:
            failed = f" {self.times - 1} probes failed." if self.times > 1 else ""
            first = "Reason" if self.by else "First failure"
            opened = f"opened{by}" if self.by else "open"
            return f"Circuit {opened}{since}.{failed}{f' {first}: {self.reason}.' if self.reason else ''}"
        return f"Paused{by}{since}.{f' Reason: {self.reason}.' if self.reason else ''}"

    @property
    def end(self) -> str:
        if self.probe:
            return "The next job probes it." if self.probe == "*" else f"Job {self.probe} probes it now."
        if self.times and self.until is not None:
            return f"One job probes it {ago(self.until)}, at {self.until:%Y-%m-%d %H:%M:%S} UTC."
        if self.until is None:
            return "It stays so until somebody resumes it."
        return f"Resumes by itself {ago(self.until)}, at {self.until:%Y-%m-%d %H:%M:%S} UTC."

    def __str__(self) -> str:
        return f"{self.sentence} {self.end}"


def pause_facts(pause: ActorPause | QueuePause) -> PauseFacts:
    """Return a pause or an open circuit as pages and commands show it."""
    begun, end = (datetime_of(ms) if ms else None for ms in (pause.since, pause.until))
    if isinstance(pause, ActorPause) and pause.is_open:
        return PauseFacts(begun, end, pause.by, pause.reason, pause.probe, pause.times)
    return PauseFacts(begun, end, pause.by, pause.reason)
