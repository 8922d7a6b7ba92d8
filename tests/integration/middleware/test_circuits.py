"""Circuits with real workers and a real endpoint that goes down and returns."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import dramatiq
import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.queue import limits
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Dependency, Yard
from switchyard.middleware.circuits import calls_host
from switchyard.middleware.errors import InvalidOption, RetryLater
from switchyard.middleware.metrics import Metrics
from tests.chaos.load import let_pass
from tests.conftest import BuildBroker
from tests.factories.endpoints import Endpoint, listening_endpoint
from tests.factories.yards import small_yard
from tests.waiting import wait_for


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening_endpoint() as made:
        yield made


def yard_with(name: str = "web", **options: Any) -> Yard:
    return replace(small_yard(), dependencies=(Dependency(name, least=5, **options),))


# The long one has the defaults of a dependency, and prints what a person wants to know.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("count", "down_s", "least_ms", "most_ms"),
    [(300, 0, 100, 200), pytest.param(5_000, 60, 2_000, 10_000, marks=pytest.mark.long)],
)
def test_what_waits_for_an_endpoint_costs_few_attempts_and_all_of_it_arrives(
    yard_broker: BuildBroker, run_worker: Any, endpoint: Endpoint, count: int, down_s: int, least_ms: int, most_ms: int
) -> None:
    dependency = f"web-{count}"  # its metrics are those of the process
    broker = yard_broker(yard_with(dependency, open_ms=least_ms, longest_open_ms=most_ms))
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", depends_on=f"{dependency} per host", max_retries=3)
    def call(host: str, number: int) -> None:
        calls_host(f"{host}.example")
        try:
            urlopen(endpoint.url(f"{host}/{number}"), timeout=10).close()
        except HTTPError as error:
            error.close()
            raise

    def took_ms() -> tuple[float, int]:
        """Return the median and the 99th percentile of the time from send to end of calls of a host that answers."""
        quiet = []
        for number in range(count // 10):
            quiet.append(call.send("fine", -number).message_id)
            let_pass(0.01)
        wait_for(lambda: records.states(quiet) == ["succeeded"] * len(quiet), 120)
        found = [record for record in map(records.read, quiet) if record is not None]
        took = sorted((record.finished_at or 0) - (record.enqueued_at or 0) for record in found)
        return statistics.median(took), took[len(took) * 99 // 100]

    def wait_for_all(ids: list[str], timeout_s: float) -> None:
        # The records of all are asked once: thousands of them, read ten times a second, take the worker's processor.
        wait_for(lambda: len(endpoint.asked) - asked_before >= len(ids), timeout_s)
        wait_for(lambda: records.states(ids) == ["succeeded"] * len(ids), timeout_s)

    with run_worker("work", "work-retry", broker=broker, threads=8):
        before_ms = took_ms()
    endpoint.down.set()
    began_s = time.monotonic()
    sent = [call.send("broken", number).message_id for number in range(count)]
    others = [call.send("fine", number).message_id for number in range(50)]
    with run_worker("work", "work-retry", broker=broker, threads=8):
        wait_for(lambda: records.states(others) == ["succeeded"] * 50)
        wait_for(lambda: facilities(broker).transport.stats("work").live.waiting == 0)
        wait = dict(enumerate(map(records.read, sent[-100:]), count - 100))
        reached_down = [path for path in endpoint.asked if path.startswith("/broken")]
        put_off = [found for number, found in wait.items() if found and f"/broken/{number}" not in reached_down]
        assert {(each.state, each.reason, each.attempts) for each in put_off} == {("scheduled", "circuit_open", 0)}
        assert len(reached_down) <= 30
        while_down_ms = took_ms()
        wait_for(lambda: time.monotonic() - began_s >= down_s, 90)
        reached_down = [path for path in endpoint.asked if path.startswith("/broken")]
        endpoint.down.clear()
        back_s, asked_before = time.monotonic(), len(endpoint.asked)
        wait_for_all(sent, 120)
        took_s, began_s, asked_before = time.monotonic() - back_s, time.monotonic(), len(endpoint.asked)
        wait_for_all([call.send("fine", number).message_id for number in range(count if down_s else 0)], 120)
        print(
            f"{count} calls: {len(reached_down)} while down, all {took_s:.1f} s after its return; "
            f"undisturbed they take {time.monotonic() - began_s:.1f} s; another host: {before_ms} ms before "
            f"and {while_down_ms} ms meanwhile (p50 and p99)"
        )

    assert {f"/broken/{number}" for number in range(count)} <= set(endpoint.asked)
    asked = len([path for path in endpoint.asked if path.startswith("/broken")])
    spent = sum(record.attempts for record in map(records.read, sent) if record is not None)
    assert asked - deferred(broker) <= spent <= asked
    [metrics] = [entry for entry in broker.middleware if isinstance(entry, Metrics)]
    assert metrics.registry.get_sample_value(
        "switchyard_circuit_openings_total", {"queue": "work", "dependency": dependency}
    )
    calls = "switchyard_dependency_calls_total"
    failed, answered = (
        metrics.registry.get_sample_value(calls, {"dependency": dependency, "outcome": outcome})
        for outcome in ("failed", "answered")
    )
    assert failed == len(reached_down)
    assert answered == len(endpoint.asked) - len(reached_down)
    by_host = {
        (host, outcome): metrics.registry.get_sample_value(
            "switchyard_dependency_host_calls_total",
            {"dependency": dependency, "host": f"{host}.example", "outcome": outcome},
        )
        for host in ("broken", "fine")
        for outcome in ("failed", "answered")
    }
    assert (by_host["broken", "failed"], by_host["fine", "failed"]) == (failed, None)
    assert (by_host["broken", "answered"] or 0) + (by_host["fine", "answered"] or 0) == answered


def deferred(broker: RedisBroker) -> float:
    """Return how many calls failed while the circuit was open, or did not start because it was."""
    [metrics] = [entry for entry in broker.middleware if isinstance(entry, Metrics)]
    labels = {"queue": "work", "actor": "call", "outcome": "deferred"}
    return metrics.registry.get_sample_value("switchyard_messages_total", labels) or 0


def test_what_fails_because_its_circuit_is_open_spends_no_attempt(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(yard_with(open_ms=60_000, longest_open_ms=60_000))
    records = facilities(broker).records
    slow, go = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work", depends_on="web", max_retries=0)
    def call(name: str) -> None:
        if name == "slow":
            slow.set()
            go.wait(60)
        raise ConnectionRefusedError(name)

    held = call.send("slow").message_id
    with run_worker("work", "work-retry", broker=broker):
        slow.wait(60)
        quick = [call.send("quick").message_id for _ in range(5)]
        wait_for(lambda: records.states(quick) == ["dead"] * 5)
        go.set()
        wait_for(lambda: (found := records.read(held)) is not None and found.reason == "circuit_open")

    assert (waits := records.read(held)) is not None
    assert (waits.state, waits.attempts, waits.next_attempt_at) == ("scheduled", 0, None)


def test_a_worker_closes_a_circuit_that_its_actor_no_longer_declares(
    yard_broker: BuildBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = yard_broker(yard_with())
    monkeypatch.setattr(limits, "DEPLOY_MS", -60_000)

    @dramatiq.actor(broker=broker, queue_name="work")
    def call(number: int) -> None: ...

    before = limits.Circuit(Dependency("old", least=1, open_ms=50), 600_000, {"call": 0})
    assert limits.note_circuit(broker.lane("work")[0], before, "x", "failed") == "opened"
    sent = [call.send(number).message_id for number in range(20)]
    with run_worker("work", broker=broker):
        wait_for(lambda: facilities(broker).records.states(sent) == ["succeeded"] * 20)


def test_errors_of_the_program_open_no_circuit(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(yard_with())
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", depends_on="web", max_retries=0)
    def call(number: int) -> None:
        raise FileNotFoundError(number) if number % 2 else ValueError(number)

    sent = [call.send(number).message_id for number in range(12)]
    with run_worker("work", broker=broker):
        wait_for(lambda: records.states(sent) == ["dead"] * 12)


def test_an_actor_names_the_errors_that_count(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(yard_with(open_ms=60_000, longest_open_ms=60_000))
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", depends_on="web", outage=(LookupError,), max_retries=0)
    def call(number: int) -> None:
        raise KeyError(number) if number > 10 else ConnectionError(number)

    sent = [call.send(number).message_id for number in range(10)]
    with run_worker("work", broker=broker, threads=1):
        wait_for(lambda: records.states(sent) == ["dead"] * 10)
        counted = [call.send(number).message_id for number in range(20, 25)]
        wait_for(lambda: records.states(counted) == ["dead"] * 5)
        stopped = call.send(30).message_id
        wait_for(lambda: (found := records.read(stopped)) is not None and found.reason == "circuit_open")


def test_retry_later_lets_all_with_the_value_wait_and_spends_nothing(broker: RedisBroker, run_worker: Any) -> None:
    records, ran = facilities(broker).records, []

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=0)
    def sync(customer_id: int, number: int = 0) -> None:
        ran.append(customer_id)
        if len(ran) == 1:
            raise RetryLater(1, "asks for a second", per="customer_id")

    first = sync.send(7).message_id
    with run_worker("work", broker=broker, threads=1):
        wait_for(lambda: (found := records.read(first)) is not None and found.reason == "actor_paused")
        assert (waits := records.read(first)) is not None
        assert waits.attempts == 0
        same, other = sync.send(7, 1).message_id, sync.send(8).message_id
        wait_for(lambda: records.states([first, same, other]) == ["succeeded"] * 3)

    assert (done := records.read(first)) is not None
    assert (ran[1], sorted(ran[2:]), done.attempts) == (8, [7, 7], 1)


def test_retry_later_for_a_dependency_opens_its_circuit_until_then(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(yard_with())
    records, ran = facilities(broker).records, []

    @dramatiq.actor(broker=broker, queue_name="work", depends_on="web", max_retries=0)
    def call(number: int) -> None:
        ran.append(number)
        if len(ran) == 1:
            raise RetryLater(1, "asks for a second", per="web")

    @dramatiq.actor(broker=broker, queue_name="work", depends_on="web")
    def other(x: int, number: int) -> None:
        call.fn(number)

    sent = [call.send(1).message_id, *(other.send(0, number).message_id for number in range(4))]
    with run_worker("work", broker=broker, threads=1):
        wait_for(lambda: [found.reason for found in map(records.read, sent) if found] == ["circuit_open"] * 5)
        wait_for(lambda: records.states(sent) == ["succeeded"] * 5)

    assert len(ran) == 6


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"depends_on": "wbe"}, "the yard has web"),
        ({"depends_on": "web for host"}, "write the name of a dependency"),
        ({"depends_on": "web per hots"}, "did you mean 'host'"),
        ({"depends_on": "web per host", "redact": ("host",)}, "is in redact"),
        ({"depends_on": "web", "outage": ConnectionError}, "write a tuple"),
        ({"outage": (ConnectionError,)}, "write depends_on"),
    ],
)
def test_what_cannot_be_declared_is_refused_with_a_remedy(
    yard_broker: BuildBroker, options: dict[str, Any], remedy: str
) -> None:
    broker = yard_broker(yard_with())

    with pytest.raises(InvalidOption, match=remedy):

        @dramatiq.actor(broker=broker, queue_name="work", **options)
        def call(host: str) -> None: ...
