"""Facts: counts by time of queues, actors, pools, releases and owners, 15 min in tens of seconds and 72 h in minutes.

Supervisors add what their children counted, and the keeper of facts what it samples, to the bucket of the moment; a
bucket is closed 30 s after its end, and the keeper then folds it into its minute. Counts of a subject are a mapping of
codes, see the constants below. They are exact, whoever repeats a call; their time is that of the flush.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import number, read, utf8
from switchyard.broker.redis.scripts import script

ADD, SAMPLE = (script(name, folder="") for name in ("facts_add", "facts_sample"))
BUCKET_MS, MINUTE_MS, SPAN_MS, HOUR_MS = 10_000, 60_000, 600_000, 3_600_000
RECENT_MS, KEPT_MS = 15 * MINUTE_MS, 72 * HOUR_MS
CLOSES_MS: Final = 30_000
BUCKET_TTL_MS, SPAN_TTL_MS, FLUSHED_TTL_MS = RECENT_MS + 2 * MINUTE_MS, KEPT_MS + HOUR_MS, HOUR_MS

Counts = Mapping[int, int]
# Codes of outcomes; of messages sent, milliseconds waited and run; of gauges, whose largest value is kept.
SUCCEEDED, RETRIED, DEAD, CANCELLED, EXPIRED, DEFERRED = range(1, 7)
OUTCOMES: Final = {
    "succeeded": SUCCEEDED, "retried": RETRIED, "dead": DEAD, "cancelled": CANCELLED, "expired": EXPIRED,
    "deferred": DEFERRED,
}  # fmt: skip
SENT, WAIT_MS, RUN_MS, DEPTH, AGE_MS = range(7, 12)
# Milliseconds of processors and of SQL, bytes of the log, and bytes that processes grew by: of actors that ran then.
PROCESSOR_MS, SQL_MS, LOG_BYTES, GROWN_BYTES = range(12, 16)
GAUGES: Final = frozenset({DEPTH, AGE_MS})
# First codes of classes. Waits and runs: class n is at most 5 ms * 2**n, the last one is longer. Sends due
# later: class n is due in 2**n minutes or more.
WAITS, RUNS, LATER = 16, 40, 64
LEAST_MS, CLASSES, LATER_CLASSES = 5, 19, 24
# Mark in a span of the minutes that are in it.
DONE: Final = "#"

# Owners that a flush of a pool, a minute and an hour keep for themselves, those that ran longest.
MOST_OWNERS: Final = 50

_SPAN: Final = msgspec.msgpack.Decoder(dict[int, dict[int, int]])
_MINUTES: Final = msgspec.msgpack.Decoder(list[int])

# Subject of the whole yard.
YARD: Final = "y:"


def queue_subject(lane: str) -> str:
    """Return the subject of a lane: a queue, or its retry lane."""
    return f"q:{lane}"


def actor_subject(actor: str) -> str:
    """Return the subject of an actor, over all lanes."""
    return f"a:{actor}"


def dependency_subject(dependency: str) -> str:
    """Return the subject of a dependency: calls that it answered succeeded, those that failed by it are retried."""
    return f"d:{dependency}"


def owner_subject(owner: str) -> str:
    """Return the subject of an owner: attempts of its jobs, and how long they ran."""
    return f"o:{owner}"


# Subject of all owners that are not kept for themselves.
OTHERS: Final = owner_subject("other")


def with_fewer_owners(subjects: Mapping[str, Counts]) -> dict[str, Counts]:
    """Return counts by subject, those of all but the ``MOST_OWNERS`` owners that ran longest added up."""
    owners = [name for name in subjects if name.startswith(owner_subject("")) and name != OTHERS]
    rest = set(sorted(owners, key=lambda name: -subjects[name].get(RUN_MS, 0))[MOST_OWNERS:])
    kept = {name: counts for name, counts in subjects.items() if name not in rest}
    if rest:
        kept[OTHERS] = merged(subjects[name] for name in (*rest, OTHERS) if name in subjects)
    return kept


def is_host(subject: str) -> bool:
    """Return whether a subject is a host of a dependency, kept for 72 h alone: that of the dependency and its name."""
    return subject.startswith("d:") and " " in subject


def merged(parts: Iterable[Counts]) -> dict[int, int]:
    """Return the sum of counts; of gauges the largest."""
    total: dict[int, int] = {}
    for counts in parts:
        for code, count in counts.items():
            total[code] = max(total.get(code, 0), count) if code in GAUGES else total.get(code, 0) + count
    return total


def starts(counts: Counts) -> int:
    """Return the attempts that started: each has waited."""
    return sum(counts.get(code, 0) for code in range(WAITS, WAITS + CLASSES))


def ends(counts: Counts) -> int:
    """Return the attempts that ended, with those that were put off not among them."""
    return sum(counts.get(code, 0) for code in range(SUCCEEDED, DEFERRED))


def failures(counts: Counts) -> int:
    """Return the attempts that failed: retried or dead."""
    return counts.get(RETRIED, 0) + counts.get(DEAD, 0)


def sent(counts: Counts) -> int:
    """Return the messages that were sent, those due later among them."""
    return counts.get(SENT, 0) + sum(counts.get(code, 0) for code in range(LATER, LATER + LATER_CLASSES))


def percentile_ms(counts: Counts, first: int, share: float) -> float | None:
    """Return a percentile of waits or runs in ms, interpolated within its class; ``None`` without any.

    Args:
        first: ``WAITS`` or ``RUNS``.
        share: From 0 to 1.
    """
    classes = [counts.get(first + number, 0) for number in range(CLASSES)]
    total, seen = sum(classes), 0
    for n, count in enumerate(classes):
        if count and seen + count >= share * total:
            high = LEAST_MS * 2.0**n
            low = high / 2 if n else 0.0
            return low + (high - low) * min(max((share * total - seen) / count, 0.0), 1.0)
        seen += count
    return None


class FactStore:
    """Write and read facts. Every method may raise ``BrokerError``."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls, self._keys = calls, keys
        self._closed: dict[int, dict[str, dict[int, int]]] = {}

    def server_ms(self) -> int:
        """Return the server's time: it decides which bucket is open."""
        seconds, micros = self._calls.command("TIME")
        return int(seconds) * 1_000 + int(micros) // 1_000

    def add(self, member: str, flush: int, counts: Mapping[str, Counts]) -> bool:
        """Add counts by subject to the bucket of this moment; return whether they are there.

        Safe to repeat with the same counts and number.

        Args:
            flush: Number of this flush of the member, larger than the one before.
        """
        start = bucket_of(self.server_ms())
        keys = [self._keys.facts_bucket(start), self._keys.facts_flushed(member)]
        head: list[Word] = [flush, start + BUCKET_MS + CLOSES_MS, BUCKET_TTL_MS, FLUSHED_TTL_MS]
        return bool(self._calls.call(ADD, keys, [*head, *_fields(counts)]))

    def sample(self, counters: Mapping[str, tuple[str, int]], gauges: Mapping[str, Counts]) -> bool:
        """Put readings into the bucket of this moment; return whether it was open.

        Args:
            counters: Name of a counter that only grows -> the field that grows with it, as :func:`field` names it, and
                its reading.
            gauges: By subject.
        """
        start = bucket_of(self.server_ms())
        keys = [self._keys.facts_bucket(start), self._keys.facts_read()]
        read: list[Word] = [word for name, (field, count) in counters.items() for word in (name, field, count)]
        head: list[Word] = [start + BUCKET_MS + CLOSES_MS, BUCKET_TTL_MS, len(counters)]
        return bool(self._calls.call(SAMPLE, keys, [*head, *read, *_fields(gauges)]))

    def recent(self, now_ms: int) -> list[tuple[int, dict[str, dict[int, int]]]]:
        """Return the buckets of the last 15 minutes, oldest first: start in ms, counts by subject.

        Those that are closed are read once by a process.
        """
        starts = range(bucket_of(now_ms - RECENT_MS), now_ms + 1, BUCKET_MS)
        known = {start: found for start, found in self._closed.items() if start in starts}
        read = dict(self._buckets([start for start in starts if start not in known]))
        closed = {start: found for start, found in read.items() if start + BUCKET_MS + CLOSES_MS <= now_ms}
        self._closed = known | closed
        return [(start, known[start] if start in known else read[start]) for start in starts]

    def forget(self) -> None:
        """Forget the closed buckets that this process has read."""
        self._closed = {}

    def fold(self, now_ms: int) -> int:
        """Write the minutes whose buckets are closed and that are not written yet; return how many.

        Safe to repeat: a minute is always made of the same buckets. A span in which a clock ahead has written minutes
        to come is made anew.
        """
        first = (now_ms - RECENT_MS) // MINUTE_MS * MINUTE_MS
        closed = [at for at in range(first, now_ms, MINUTE_MS) if at + MINUTE_MS + CLOSES_MS <= now_ms]
        spans = sorted({span_of(at) for at in closed})
        marks = self._calls.look([("HGET", self._keys.facts_span(span), DONE) for span in spans])
        written = dict(zip(spans, marks, strict=True))
        for span in [span for span in spans if any(at >= now_ms for at in self._minutes(span, written[span]))]:
            self._calls.command("PEXPIRE", self._keys.facts_span(span), 0)
            written[span] = None
        missing = [at for at in closed if at not in self._minutes(span_of(at), written[span_of(at)])]
        for at in missing:
            self._write(at)
        return len(missing)

    def minutes(self, subject: str, since_ms: int, until_ms: int) -> dict[int, dict[int, int]]:
        """Return a subject's counts by the start of their minute, ms since the epoch, oldest first."""
        spans = range(span_of(since_ms), until_ms, SPAN_MS)
        answers = self._calls.look([("HGET", self._keys.facts_span(span), subject) for span in spans])
        return {
            at: counts
            for span, data in zip(spans, answers, strict=True)
            for at, counts in self._span(span, data).items()
            if since_ms <= at < until_ms
        }

    def all_minutes(self, since_ms: int, until_ms: int) -> dict[str, dict[int, int]]:
        """Return the counts of every subject over whole spans of ten minutes."""
        spans = range(span_of(since_ms), until_ms, SPAN_MS)
        parts: dict[str, list[Counts]] = {}
        for span, found in zip(
            spans, self._calls.look([("HGETALL", self._keys.facts_span(span)) for span in spans]), strict=True
        ):
            for name, data in zip(found[::2], found[1::2], strict=True):
                subject = utf8(name)
                if subject != DONE:
                    parts.setdefault(subject, []).extend(self._span(span, data).values())
        return {subject: merged(found) for subject, found in parts.items()}

    def _buckets(self, starts: Sequence[int]) -> list[tuple[int, dict[str, dict[int, int]]]]:
        keys = [self._keys.facts_bucket(start) for start in starts]
        answers = self._calls.look([("HGETALL", key) for key in keys])
        found = []
        for start, key, fields in zip(starts, keys, answers, strict=True):
            subjects: dict[str, dict[int, int]] = {}
            for name, count in zip(fields[::2], fields[1::2], strict=True):
                code, _, subject = utf8(name).partition(" ")
                if code.isdigit():
                    subjects.setdefault(subject, {})[int(code)] = number(count, key)
            found.append((start, subjects))
        return found

    def _write(self, at: int) -> None:
        buckets = [found for _, found in self._buckets(range(at, at + MINUTE_MS, BUCKET_MS))]
        span, key = span_of(at), self._keys.facts_span(span_of(at))
        names = sorted({subject for found in buckets for subject in found})
        minute = with_fewer_owners({name: merged(found.get(name, {}) for found in buckets) for name in names})
        mark, *before = self._calls.look([("HMGET", key, DONE, *minute)])[0]
        words: list[Word] = [DONE, msgspec.msgpack.encode([*self._minutes(span, mark), at])]
        for subject, data in zip(minute, before, strict=True):
            packed = {(each - span) // MINUTE_MS: counts for each, counts in self._span(span, data).items()}
            packed[(at - span) // MINUTE_MS] = dict(minute[subject])
            words += [subject, msgspec.msgpack.encode(packed)]
        # One command: a minute is written whole with its mark, or not at all.
        self._calls.pipeline([("HSET", key, *words), ("PEXPIRE", key, SPAN_TTL_MS)])

    def _minutes(self, span: int, data: bytes | None) -> list[int]:
        return [] if data is None else read(_MINUTES, data, self._keys.facts_span(span)) or []

    def _span(self, span: int, data: bytes | None) -> dict[int, dict[int, int]]:
        found = None if data is None else read(_SPAN, data, self._keys.facts_span(span))
        return {span + minute * MINUTE_MS: counts for minute, counts in sorted((found or {}).items())}


def bucket_of(at_ms: int) -> int:
    """Return the start of a moment's bucket."""
    return at_ms // BUCKET_MS * BUCKET_MS


def span_of(at_ms: int) -> int:
    """Return the start of the ten minutes that a moment is in."""
    return at_ms // SPAN_MS * SPAN_MS


def field(subject: str, code: int) -> str:
    """Return the name of a count in a bucket."""
    return f"{code} {subject}"


def _fields(counts: Mapping[str, Counts]) -> list[Word]:
    return [
        word
        for subject, of_subject in counts.items()
        for code, count in of_subject.items()
        for word in (field(subject, code), count)
    ]
