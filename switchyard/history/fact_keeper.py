"""The keeper of facts: samples queues every 10 s, folds what is counted into minutes, stores hours for a year."""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from django.db import connection
from django.db.models import Max

from switchyard.broker.interface import facilities
from switchyard.broker.shapes import QueueStats
from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.yard_facts import CLOSES_MS, HOUR_MS, KEPT_MS, MINUTE_MS, Counts, FactStore
from switchyard.database import tidy_connections
from switchyard.history.models import FactHour
from switchyard.long_running import FACT_KEEPER, Leadership, LogThrottle

EVERY_S, STOP_POLL_S = 10.0, 0.5
YEAR_HOURS: Final = 366 * 24
# Hours that one step writes after an absence: each is read and written within some ten milliseconds.
MOST_HOURS: Final = 6


class FactKeeper:
    """Loop over sampling, folding and storing. Of several processes one keeps; each step is safe to repeat."""

    def __init__(self, store: FactStore | None = None) -> None:
        found = facilities()
        calls, keys = found.records.calls, found.records.keys
        self._yard, self._transport = found.yard, found.transport
        self.store = store or found.facts
        self._leadership = Leadership(calls, keys, FACT_KEEPER)
        self._throttle = LogThrottle("keeping facts", "switchyard.history")
        self._next_hour: int | None = None

    def run(self, stop: threading.Event) -> None:
        """Keep facts until ``stop`` is set."""
        next_s = time.monotonic()
        while not stop.wait(min(max(next_s - time.monotonic(), 0.0), STOP_POLL_S)):
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + EVERY_S
                self.step()
        self._leadership.release()
        connection.close()

    def step(self) -> None:
        """Fold, store and sample, if this process leads. Failures are logged, and made up for by a later step."""
        tidy_connections()
        with self._throttle:
            if self._leadership.acquire_or_renew():
                now = self.store.server_ms()
                self.store.fold(now)
                self._store_hours(now)
                self.store.sample(*readings(self._transport.stats(queue.name) for queue in self._yard.queues))
            return
        connection.close()  # after a failure

    def _store_hours(self, now: int) -> None:
        """Store the hours whose last minute is folded, oldest first."""
        ended = (now - CLOSES_MS - MINUTE_MS) // HOUR_MS
        if self._next_hour is None or self._next_hour > ended:  # a clock that was ahead has stored hours to come
            last = FactHour.objects.filter(hour__lt=ended).aggregate(last=Max("hour"))["last"]
            self._next_hour = max((last or 0) + 1, ended - KEPT_MS // HOUR_MS)
        for hour in range(self._next_hour, min(ended, self._next_hour + MOST_HOURS)):
            found = facts.with_fewer_owners(self.store.all_minutes(hour * HOUR_MS, (hour + 1) * HOUR_MS))
            store_hour(hour, {subject: counts for subject, counts in found.items() if not facts.is_host(subject)})
            self._next_hour = hour + 1
            FactHour.objects.filter(hour__lt=hour - YEAR_HOURS).delete()


def store_hour(hour: int, counts: Mapping[str, Counts]) -> None:
    """Write an hour's counts by subject; those of an hour that is there are replaced.

    Raises:
        django.db.DatabaseError: nothing was written.
    """
    rows = [FactHour(subject=name[:300], hour=hour, counts=msgspec.msgpack.encode(of)) for name, of in counts.items()]
    FactHour.objects.bulk_create(
        rows, batch_size=200, update_conflicts=True, unique_fields=("subject", "hour"), update_fields=("counts",)
    )


def hours_of(subjects: Iterable[str] | None, hours: Iterable[int]) -> dict[str, dict[int, dict[int, int]]]:
    """Return the counts of some subjects, or of all, by hour; ``DatabaseError`` where the database does not answer."""
    # A year of hours is a range: named one by one, it takes the database longer to read them than to find the rows.
    named = {"hour__gte": hours.start, "hour__lt": hours.stop} if isinstance(hours, range) else {"hour__in": [*hours]}
    rows = FactHour.objects.filter(**named)
    if subjects is not None:
        rows = rows.filter(subject__in=list(subjects))
    found: dict[str, dict[int, dict[int, int]]] = {}
    for subject, hour, counts in rows.order_by("hour").values_list("subject", "hour", "counts"):
        found.setdefault(subject, {})[hour] = msgspec.msgpack.decode(bytes(counts), type=dict[int, int])
    return found


def readings(stats: Iterable[QueueStats]) -> tuple[dict[str, tuple[str, int]], dict[str, Counts]]:
    """Return counters and gauges of queues, as :meth:`FactStore.sample` takes them."""
    counters: dict[str, tuple[str, int]] = {}
    gauges: dict[str, Counts] = {}
    depth, age = facts.DEPTH, facts.AGE_MS
    for one in stats:
        gauges[facts.queue_subject(one.queue)] = {depth: one.live.waiting, age: one.live.oldest_age_ms or 0}
        for name, count in one.sends.items():
            actor, _, later = name.partition("\n")
            code = facts.LATER + min(int(later), facts.LATER_CLASSES - 1) if later.isdigit() else facts.SENT
            counters[f"{one.queue}\n{name}"] = facts.field(facts.actor_subject(actor), code), count
    depths, ages = ([of[code] for of in gauges.values()] for code in (depth, age))
    gauges[facts.YARD] = {depth: sum(depths), age: max(ages, default=0)}
    return counters, gauges
