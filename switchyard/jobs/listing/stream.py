"""Signals that something moved in the queues, for open lists: one reading of counters every 2 s for a whole process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import DatabaseError
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.keys.queue_keys import ALL_LANES
from switchyard.history.filters import Filter
from switchyard.history.models import JobRow
from switchyard.jobs import live
from switchyard.jobs.listing.jobs_page import LIMIT, JobsPage
from switchyard.jobs.listing.lines import JobLine, line_of_record, line_of_row
from switchyard.jobs.listing.pages import find_jobs
from switchyard.jobs.live import Stream, free_database
from switchyard.jobs.running import families, records_of

EVERY_S: Final = 2.0
# The browser connects again, with the rights that its user has then.
LONGEST_S: Final = 600.0
_CHANGE: Final = b"event: change\ndata: {}\n\n"
logger = logging.getLogger(__name__)


def read_counters() -> tuple[Any, ...]:
    """Return counters one of which changes when a job is sent, starts, is put off, ends, or comes into the history.

    One round trip.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    found = families()
    reads: list[tuple[str, ...]] = [("HGET", facilities().records.keys.history_counts(), "written")]
    for keys in (family.keys for family in found):
        reads += [("GET", keys.token), ("HLEN", keys.bodies), ("HLEN", keys.jobs)]
        reads += [("ZCARD", keys.due(lane)) for lane in ALL_LANES]
    # A node of a cluster that does not answer changes nothing.
    answers = found[0].calls.pipeline(reads, raise_errors=False) if found else []
    return tuple(None if isinstance(answer, BrokerError) else answer for answer in answers)


async def list_events(request: HttpRequest, *, caller: str) -> HttpResponseBase:
    """Signal changes as server-sent events ``change`` without content, at most one every 2 s."""
    await free_database()
    return StreamingHttpResponse(
        Stream(follow(heartbeat_s=live.HEARTBEAT_S), source=live.StreamPlace(caller)),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def follow(*, heartbeat_s: float) -> AsyncGenerator[bytes]:
    """Yield a change at once and after each one, a comment after every ``heartbeat_s`` without; ends after 10 min."""
    yield f"retry: {live.RECONNECT_MS}\n\n".encode()
    began = time.monotonic()
    with _reader().watched() as news:
        yield _CHANGE
        while time.monotonic() - began < LONGEST_S:
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat_s):
                    await news.wait()
            yield _CHANGE if news.is_set() else b": heartbeat\n\n"
            news.clear()


class _CounterReader:
    """The reader of counters in one event loop. It runs while somebody watches."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """Set an event after each change."""
        news = asyncio.Event()
        self._watchers.add(news)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="counters of the queues")
        try:
            yield news
        finally:
            self._watchers.discard(news)
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        last: tuple[Any, ...] | None = None
        while True:
            try:
                counters = await sync_to_async(read_counters, thread_sensitive=False)()
            except BrokerError as error:
                logger.warning("counters of the queues are not read: %s", type(error).__name__)
                counters = None
            if counters != last:
                for news in self._watchers:
                    news.set()
            last = counters
            await asyncio.sleep(EVERY_S)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, _CounterReader] = WeakKeyDictionary()


def _reader() -> _CounterReader:
    loop = asyncio.get_running_loop()
    reader = _readers.get(loop)
    if reader is None:
        reader = _readers[loop] = _CounterReader()
    return reader


# The first page of a list is read at most so often for all who look at it, and takes at most a twentieth of the time.
LEAST_AGE_S: Final = 2.0
AGE_PER_COST: Final = 20
MOST_KEPT: Final = 64
# The history has a job some seconds after its end: one that ended before the page was made may come after it.
LATE_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ListChanges:
    """Changes of a list since it was shown.

    Args:
        lines: The jobs that are shown, as they stand; one that nobody knows any longer is left out.
        new_count: Jobs that came since, among those of a first page; ``more`` follow.
        is_away: Broker or database did not answer.
    """

    lines: tuple[JobLine, ...]
    new_count: int
    more: bool
    is_away: bool


def changes_of(wanted: Filter, shown: Sequence[str], *, shown_at: int, arguments: bool) -> ListChanges:
    """Return what has changed in a list.

    Args:
        shown: Ids of the jobs in the list, at most a page.
        shown_at: When the list was made, ms since the epoch.
        arguments: Whether the lines show the jobs' arguments.
    """
    page = fresh_page(wanted, arguments=arguments)
    lines = {line.id: line for line in page.lines}
    others, is_away = _lines_of([id_ for id_ in shown if id_ not in lines], arguments=arguments)
    # Of a list that was cut, older jobs move up when others leave it.
    since = shown_at - LATE_MS if len(shown) >= LIMIT else 0
    known = set(shown)
    new = [line for line in page.lines if line.id not in known and max(line.at, line.started_at or 0) >= since]
    lines |= others
    return ListChanges(
        lines=tuple(lines[id_] for id_ in shown if id_ in lines),
        new_count=len(new),
        more=bool(new and page.after) and new[-1] is page.lines[-1],
        is_away=is_away or page.broker_away or page.history_away,
    )


@dataclass(slots=True)
class _Kept:
    page: JobsPage | None = None
    until_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


_kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
_lock = threading.Lock()


def fresh_page(wanted: Filter, *, arguments: bool) -> JobsPage:
    """Return the first page of a list, read once for all who ask for it within 2 s, or 20 times what it took."""
    key = (wanted, arguments)
    with _lock:
        kept = _kept.setdefault(key, _Kept())
        _kept.move_to_end(key)
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    with kept.lock:
        began = time.monotonic()
        if kept.page is None or began >= kept.until_s:
            kept.page = find_jobs(wanted, arguments=arguments)
            ended = time.monotonic()
            kept.until_s = ended + max(LEAST_AGE_S, AGE_PER_COST * (ended - began))
        return kept.page


def _lines_of(ids: list[str], *, arguments: bool) -> tuple[dict[str, JobLine], bool]:
    """Return jobs by their ids: from the broker, once they have ended from the history; and whether one was away."""
    away = False
    try:
        records = records_of(ids)
    except BrokerError:
        records, away = {}, True
    lines = {id_: line_of_record(record, arguments=arguments) for id_, record in records.items()}
    ended = [id_ for id_ in ids if id_ not in records or records[id_].ended]
    try:
        for row in JobRow.objects.filter(job_id__in=ended):
            lines[row.job_id] = line_of_row(row, at=row.finished_at or row.failed_at or 0, arguments=arguments)
    except DatabaseError:
        away = True
    return lines, away
