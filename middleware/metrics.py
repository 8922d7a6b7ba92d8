"""Prometheus metrics of workers. Depth and age of queues are read from the broker at each scrape."""

import contextlib
import threading
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker
from prometheus_client import CollectorRegistry, Counter, Histogram

from switchyard.broker.clock import now_ms
from switchyard.broker.worker.acks import AckBarrier
from switchyard.middleware.envelope import ready_since
from switchyard.middleware.logs import LOGGED, printable
from switchyard.middleware.options import LONGEST_OWNER
from switchyard.middleware.outcomes import SUCCEEDED, outcome_of

# Doubling from 5 ms: one scale for a start within 80 ms and a report of 5 minutes.
BUCKETS_S = tuple(0.005 * 2**step for step in range(18))

# Series of a metric are bounded, whatever actors and exceptions there are: beyond these, the last label is "other".
# Each pair of lane and actor costs about 50 series, mostly buckets; each triple with an exception costs one.
MOST_ACTORS, MOST_EXCEPTIONS, MOST_HOSTS = 500, 1_000, 32
KEEP_EVERY_S = 2.0
# Owners that a process counts for themselves. Their two counters are for the facts alone: no exposition has them, as
# owners may be many, and persons.
MOST_OWNERS = 1_000
OWNER_ATTEMPTS, OWNER_SECONDS = "switchyard_owner_attempts", "switchyard_owner_seconds"


class Metrics(Middleware):
    """Counters and timers of every attempt, by queue and actor.

    Listed before the middleware that decides the outcome.

    Args:
        barrier: Calls :meth:`fold` before acknowledgements, so that a file is changed once for many messages. Without
            it, each value is written at once.
        keep_files: Called by :meth:`fold`, every two seconds at most: starts new files where the old ones are gone.
        thread_time: Whether a thread runs one attempt at a time, so that its processor time is the attempt's.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        barrier: AckBarrier | None = None,
        keep_files: Callable[[], None] | None = None,
        thread_time: bool = True,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        both = ("queue", "actor")
        count = partial(Counter, registry=self.registry)
        measure = partial(Histogram, buckets=BUCKETS_S, registry=self.registry)
        self.wait = measure("switchyard_message_wait_seconds", "Time from a message being ready to its start.", both)
        self.duration = measure("switchyard_message_duration_seconds", "Run time of an attempt.", both)
        self.messages = count("switchyard_messages", "Attempts by how they ended.", (*both, "outcome"))
        text = "Attempts that will be retried, by exception."
        self.retries = count("switchyard_retries", text, (*both, "exception"))
        self.stale = count("switchyard_stale_ends", "Ends of messages that the worker had lost to another.", ("queue",))
        text = "Circuits of a dependency that opened because calls of it failed."
        self.openings = count("switchyard_circuit_openings", text, ("queue", "dependency"))
        text = "Attempts that called a dependency: answered, or failed because of it."
        self.calls = count("switchyard_dependency_calls", text, ("dependency", "outcome"))
        text = "Calls of a dependency by host, where the attempt named one."
        self.host_calls = count("switchyard_dependency_host_calls", text, ("dependency", "host", "outcome"))
        self._processor, self._sql, self._logged, self.grown = (
            Children(count(f"switchyard_{name}", text, both))
            for name, text in (
                ("message_processor_seconds", "Processor time of attempts, in their own threads."),
                ("message_sql_seconds", "Time of attempts in statements of Django's databases."),
                ("message_log_bytes", "Bytes that attempts wrote to the log."),
                ("memory_growth_bytes", "Growth of workers beyond their largest size, by what ran then."),
            )
        )
        self._owner_attempts = count(OWNER_ATTEMPTS, "Attempts by their job's owner.", ("outcome", "owner"))
        self._owner_seconds = count(OWNER_SECONDS, "Run time of attempts by their job's owner.", ("owner",))
        self._thread_time, self._thread = thread_time, _ThreadTime()
        # Processor time in ns and seconds in SQL, and attempts and seconds of owners, that are not written yet; bytes
        # of the log that are.
        self._spent: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0, 0.0])
        self._owned: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
        self._log_bytes: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._wait_of = Children(self.wait)
        self._duration_of = Children(self.duration)
        self._messages = Children(self.messages)
        # One entry for each start, and one for each end. Any thread may append to them.
        self._waits: deque[tuple[tuple[str, ...], float]] = deque()
        self._ends: deque[tuple[tuple[str, ...], str, float | None, int, float, str]] = deque()
        self._folding = threading.Lock()
        self._barrier = barrier
        self._fold_soon = self.fold if barrier is None else barrier.wake
        self._keep_files, self._keep_at_s = keep_files, 0.0
        self._actors = BoundedLabels(MOST_ACTORS)
        self._exceptions, self._hosts, self._owners = map(BoundedLabels, (MOST_EXCEPTIONS, MOST_HOSTS, MOST_OWNERS))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        started_ms = message.started_ms = now_ms()  # type: ignore[attr-defined]
        message.started_s = time.monotonic()  # type: ignore[attr-defined]
        self._waits.append((self._labels(message), max(started_ms - ready_since(message), 0) / 1000))
        self._fold_soon()

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        processor_ns = 0
        if self._thread_time:  # since the attempt before: reading it costs 0.6 µs, and a thread that waits takes none
            thread, now_ns = self._thread, time.thread_time_ns()
            processor_ns, thread.ended_ns = now_ns - thread.ended_ns, now_ns
        outcome = outcome_of(message, exception)
        labels = self._labels(message)
        started_s = getattr(message, "started_s", None)
        took_s = None if started_s is None else time.monotonic() - started_s
        owner = message.options.get("owner") or ""
        self._ends.append((labels, outcome.kind, took_s, processor_ns, getattr(message, "sql_s", 0.0), owner))
        self._fold_soon()
        if outcome is not SUCCEEDED:
            if outcome.kind == "retried" and outcome.exception is not None:
                self.retries.labels(*self._exceptions.bounded(*labels, type(outcome.exception).__name__)).inc()
            if opened := getattr(message, "circuit_opened", ""):
                self.openings.labels(labels[0], opened).inc()
        if called := getattr(message, "called", None):
            self.calls.labels(*called).inc()
            if host := getattr(message, "called_host", ""):
                self.host_calls.labels(*self._hosts.bounded(called[0], host), called[1]).inc()

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        self._messages[*self._labels(message), outcome_of(message, message._exception).kind].inc()

    after_skip_message = after_nack

    def after_stale_end(self, broker: Broker, queue: str) -> None:
        """Count an end that was ignored, because another worker held the message by then."""
        self.stale.labels(queue).inc()

    def fold(self) -> None:
        """Add the recorded values to the metrics. A message that is acknowledged after this call is counted."""
        with self._folding:
            due = time.monotonic() >= self._keep_at_s
            if due:
                self._keep_at_s = time.monotonic() + KEEP_EVERY_S
                if self._keep_files is not None:
                    self._keep_files()
            self._fold_waits()
            self._fold_ends()
            if due or self._barrier is None:
                self._write_spent()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Write what attempts spent: that is written every two seconds, as a write costs as much as all else of it."""
        with self._folding, contextlib.suppress(OSError):  # without a descriptor, which is logged, no file grows
            self._fold_ends()
            self._write_spent()

    def _fold_waits(self) -> None:
        waits: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        for _ in range(len(self._waits)):
            labels, waited_s = self._waits.popleft()
            waits[labels].append(waited_s)
        observe(self._wait_of, waits)

    def _fold_ends(self) -> None:
        durations: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        outcomes: defaultdict[tuple[tuple[str, ...], str], int] = defaultdict(int)
        for _ in range(len(self._ends)):
            labels, kind, took_s, processor_ns, sql_s, owner = self._ends.popleft()
            outcomes[labels, kind] += 1
            spent = self._spent[labels]
            spent[0] += processor_ns
            if took_s is not None:
                durations[labels].append(took_s)
            if sql_s > 0:
                spent[1] += sql_s
            if owner:
                owned = self._owned[owner, kind]
                owned[0] += 1
                owned[1] += took_s or 0.0
        observe(self._duration_of, durations)
        for (labels, kind), count in outcomes.items():
            self._messages[*labels, kind].inc(count)

    def _write_spent(self) -> None:
        for labels, (processor_ns, sql_s) in self._spent.items():
            self._processor[labels].inc(processor_ns / 1e9)
            if sql_s:
                self._sql[labels].inc(sql_s)
        self._spent.clear()
        for (owner, kind), (attempts, seconds) in self._owned.items():
            [name] = self._owners.bounded(printable(str(owner))[:LONGEST_OWNER])
            self._owner_attempts.labels(kind, name).inc(attempts)
            self._owner_seconds.labels(name).inc(seconds)
        self._owned.clear()
        for labels, count in list(LOGGED.items()):
            self._logged[self._actors.bounded(*labels)].inc(count - self._log_bytes[labels])
            self._log_bytes[labels] = count

    def _labels(self, message: MessageProxy) -> tuple[str, ...]:
        labels = (message.queue_name, message.actor_name)
        return labels if labels in self._actors.seen else self._actors.bounded(*labels)


class _ThreadTime(threading.local):
    ended_ns = 0  # processor time of the thread at the end of its last attempt


class Children(dict[tuple[str, ...], Any]):
    """Cache of a metric's children by label: one dict lookup, whereas ``labels()`` validates and locks each time."""

    def __init__(self, metric: Counter | Histogram) -> None:
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        child = self[labels] = self._metric.labels(*labels)
        return child


def observe(children: Children, observations: Mapping[tuple[str, ...], Sequence[float]]) -> None:
    """Add observations to a histogram: each bucket changes once, with ``observe()`` once for each value."""
    for labels, values in observations.items():
        child = children[labels]
        child._sum.inc(sum(values))
        for bucket, count in Tally(bisect_left(BUCKETS_S, value) for value in values).items():
            child._buckets[bucket].inc(count)


class BoundedLabels:
    """Combinations of labels that were ``seen``, up to a number. In any further one the last label is ``other``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.seen: set[tuple[str, ...]] = set()

    def bounded(self, *labels: str) -> tuple[str, ...]:
        if labels in self.seen:
            return labels
        if len(self.seen) >= self._most:
            return (*labels[:-1], "other")
        self.seen.add(labels)
        return labels
