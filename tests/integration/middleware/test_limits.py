"""Limits on what runs at once and on what waits, and circuits with a real endpoint that goes down and returns."""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.broker.errors import QueueFull
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import circuits, limits
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.queue.limits import declare_fair, wait_of
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Dependency, FairShare, Yard
from switchyard.jobs import services
from switchyard.jobs.passport.why import limit_sentence
from switchyard.middleware.circuits import calls_host
from switchyard.middleware.errors import InvalidOption, RetryLater
from switchyard.middleware.metrics import Metrics
from switchyard.wiring import build_yard, in_order
from tests.chaos.load import let_pass
from tests.factories.brokers import the_global_broker
from tests.factories.endpoints import Endpoint, listening_endpoint
from tests.factories.yards import small_yard
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for


class Running:
    """Jobs that run, by key, and the most that ever did."""

    def __init__(self) -> None:
        self.now: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self._lock = threading.Lock()

    def __call__(self, *keys: Any) -> None:
        with self._lock:
            self.now.update(keys)
            self.most |= self.now
        time.sleep(0.005)
        with self._lock:
            self.now.subtract(keys)


def ended(broker: RedisBroker, ids: list[str], state: str = "succeeded") -> bool:
    found = [facilities(broker).records.read(id_) for id_ in ids]
    return all(one is not None and one.state == state for one in found)


def test_two_workers_never_run_more_than_a_limit_allows(valkey, run_worker):
    # As in two processes: what a broker fetches has one owner.
    broker, another = (build_yard(small_yard(), valkey, Keys("limits")) for _ in range(2))
    running = Running()

    def sync(customer_id: int, host: str = "") -> None:
        running("all", customer_id)

    def other() -> None:
        running("other")

    for each in (broker, another):
        limited = dramatiq.actor(sync, broker=each, queue_name="work", concurrency=[6, "2 per customer_id"])
        free = dramatiq.actor(other, broker=each, queue_name="work")
    ids = [limited.send(number % 5).message_id for number in range(80)]
    others = [free.send().message_id for _ in range(10)]
    with run_worker(broker=broker, threads=8), run_worker(broker=another, threads=8):
        wait_for(lambda: ended(broker, [*ids, *others]))

    assert max(running.most[customer] for customer in range(5)) == 2
    assert 2 < running.most["all"] <= 6
    records = facilities(broker).records
    assert {records.read(id_).attempts for id_ in ids} == {1}
    family = broker.lane("work")[0]
    assert not family.calls.command("EXISTS", family.keys.slots, family.keys.turns)
    assert facilities(broker).transport.stats("work").live.scheduled == 0


def test_a_sequence_is_kept_though_some_fail_and_some_die(yard_broker, run_worker):
    broker = yard_broker(small_yard(max_retries=1, base_ms=1, cap_ms=2))
    seen: dict[int, list[int]] = {1: [], 2: []}
    failed: set[tuple[int, int]] = set()

    @dramatiq.actor(broker=broker, queue_name="work", ordered_by="order_id")
    def tell(order_id: int, number: int) -> None:
        if number % 3 == 0 and ((order_id, number) not in failed or number % 6 == 0):
            failed.add((order_id, number))
            raise ConnectionError
        seen[order_id].append(number)

    ids = {(order_id, number): tell.send(order_id, number).message_id for number in range(1, 19) for order_id in (1, 2)}
    good = [id_ for (_, number), id_ in ids.items() if number % 6]
    with run_worker(broker=broker, threads=8):
        wait_for(lambda: ended(broker, good) and ended(broker, [ids[1, 18], ids[2, 18]], "dead"))

    assert seen == {key: [number for number in range(1, 19) if number % 6] for key in (1, 2)}


def test_a_job_says_which_limit_it_waits_for(broker, run_worker):
    go_on = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work", concurrency="1 per customer_id")
    def sync(customer_id: int) -> None:
        go_on.wait(60)

    with run_worker(broker=broker, threads=4):
        ids = [sync.send(7).message_id for _ in range(3)]
        records = facilities(broker).records
        try:
            wait_for(lambda: Counter(records.read(id_).state for id_ in ids) == {"running": 1, "scheduled": 2})
            jobs = [records.read(id_) for id_ in ids]
            assert {one.reason for one in jobs if one is not None and one.state == "scheduled"} == {"concurrency"}
            family = broker.lane("work")[0]
            waits = [wait for id_ in ids if (wait := wait_of(family, id_)) is not None]
            assert sorted((one.key, one.n, one.taken, one.before) for one in waits) == [
                ("sync customer_id=7", 1, 1, 0),
                ("sync customer_id=7", 1, 1, 1),
            ]
            said = limit_sentence(max(waits, key=lambda one: one.before), arguments=True)
            places = "1 of 1 places taken, 1 job before it, since 20"
            assert said.startswith(f"It waits for a limit: 1 of sync with customer_id=7 at once, {places}")
            assert "customer_id" not in limit_sentence(waits[0], arguments=False)
        finally:
            go_on.set()
        wait_for(lambda: ended(broker, ids))


def test_a_rate_counts_for_each_value_and_several_rates_at_once(broker, run_worker):
    started = Counter[str]()

    @dramatiq.actor(broker=broker, queue_name="work", rate_limit=["100/h", "3/h per host"])
    def call(number: int, host: str = "a") -> None:
        started[host] += 1

    sent = [call.send(number, host).message_id for number in range(5) for host in ("b", "c")]
    sent += [call.send(number).message_id for number in range(5)]
    records = facilities(broker).records

    def ends() -> Counter[Any]:
        return Counter((found.state, found.reason) for id_ in sent if (found := records.read(id_)) is not None)

    with run_worker(broker=broker, threads=4):
        wait_for(lambda: ends() == {("succeeded", None): 9, ("scheduled", "rate_limit"): 6})

    assert started == {"a": 3, "b": 3, "c": 3}
    assert {found.attempts for id_ in sent if (found := records.read(id_)) is not None} <= {0, 1}
    assert broker.client.zcard(broker.keys.window('call host="b"')) == 5
    assert broker.client.zcard(broker.keys.window("call")) == 15


def test_a_rate_counts_by_a_redacted_value_without_showing_it(broker, run_worker):
    started = Counter[str]()

    @dramatiq.actor(broker=broker, queue_name="work", rate_limit="1/h per to", redact=("to",))
    def mail(to: str) -> None:
        started[to] += 1

    sent = [mail.send(to).message_id for to in ("a@x.example", "b@x.example", "a@x.example")]
    with run_worker(broker=broker):
        wait_for(lambda: sum(ended(broker, [id_], "scheduled") for id_ in sent) == 1 and len(started) == 2)

    assert set(started.values()) == {1}
    assert not [name for name in broker.client.keys("*") if b"x.example" in name]


@pytest.mark.parametrize(("name", "value"), [("concurrency", "5 per {}"), ("ordered_by", "{}")])
@pytest.mark.parametrize(
    ("argument", "fact"),
    [("secret", "secret is in redact, and would be shown; name another"), ("sekret", r"did you mean 'secret'\?")],
)
def test_an_argument_that_cannot_be_a_key_is_refused(name, value, argument, fact):
    broker, option = StubBroker(middleware=in_order(facilities())), {name: value.format(argument)}

    with pytest.raises(InvalidOption, match=fact):
        dramatiq.actor(lambda secret: None, actor_name="job", broker=broker, redact=("secret",), **option)


def test_the_actors_of_the_guide_keep_their_limits(broker, run_worker):
    block, *_ = code_blocks(read("docs/how-to/limit-what-runs-at-once.md"), "python")
    names: dict[str, Any] = {}
    with the_global_broker(broker):
        exec(compile(block, "limit-what-runs-at-once.md", "exec"), names)
    shown, seen, running = SimpleNamespace(**names), [], Running()
    shown.reconcile.fn = lambda month: running("reconcile")
    shown.tell_shop.fn = lambda order_id, state: seen.append((order_id, state))

    with run_worker(broker=broker, threads=8):
        ids = [shown.reconcile.send(f"2026-{month:02}").message_id for month in range(1, 13)]
        ids += [shown.tell_shop.send(1, str(number)).message_id for number in range(12)]
        ids += [shown.sync.send("eu", number).message_id for number in range(12)]
        wait_for(lambda: ended(broker, ids))

    assert running.most["reconcile"] == 1
    assert seen == [(1, str(number)) for number in range(12)]


def test_the_fair_queue_of_the_guide_serves_its_customers_in_turn(yard_broker, run_worker):
    names: dict[str, Any] = {}
    exec(compile(code_blocks(read("docs/how-to/limit-what-runs-at-once.md"), "python")[1], "guide", "exec"), names)
    yard = small_yard()
    pools = (replace(yard.pools[0], queues=("exports", "mails")), yard.pools[1])
    broker = yard_broker(replace(yard, queues=(names["EXPORTS"], names["MAILS"]), pools=pools))
    started: dict[str, list[int]] = {"exports": [], "mails": []}

    def note(queue: str, customer_id: int) -> None:
        started[queue].append(customer_id)

    export = dramatiq.actor(partial(note, "exports"), actor_name="export", broker=broker, queue_name="exports")
    mail = dramatiq.actor(partial(note, "mails"), actor_name="mail", broker=broker, queue_name="mails")
    for queue in ("exports", "mails"):  # as workers that ran before have declared it
        own = [each for each in broker.actors.values() if each.queue_name == queue]
        declare_fair(broker.lane(queue)[0], broker.fair[queue], own)
    ids = [
        each.send(customer_id=customer).message_id for customer in (7, 8) for each in (export, mail) for _ in range(40)
    ]
    with run_worker(broker=broker, threads=1):
        wait_for(lambda: ended(broker, ids))

    assert Counter(started["exports"][:20])[8] == 5
    assert Counter(started["mails"][:20])[8] == 10
    assert Counter(started["exports"]) == {7: 40, 8: 40}


def shallow_yard(max_depth: int) -> Yard:
    """Return a yard whose queue holds so many messages."""
    yard = small_yard()
    return dataclasses.replace(yard, queues=(dataclasses.replace(yard.queues[0], max_depth=max_depth),))


def ids(messages: list[dramatiq.Message[Any]]) -> list[str]:
    return [message.message_id for message in messages]


def test_the_next_step_of_a_pipeline_and_a_retry_go_into_a_full_queue(yard_broker, run_worker):
    broker = yard_broker(shallow_yard(1))
    started, full, done = threading.Event(), threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def first() -> int:
        if not started.is_set():
            started.set()
            full.wait(60)
            raise RuntimeError("the first time")
        return 1

    @dramatiq.actor(broker=broker, queue_name="work")
    def second(number: int) -> None:
        done.set()

    @dramatiq.actor(broker=broker, queue_name="work")
    def filler() -> None: ...

    with run_worker(broker=broker, threads=1):
        dramatiq.pipeline([first.message(), second.message()], broker=broker).run()
        assert started.wait(30)
        filler.send_with_options(delay=60_000)
        with pytest.raises(QueueFull, match="'work' holds 1 messages of at most 1"):
            filler.send()
        full.set()
        assert done.wait(30)


def test_a_job_that_a_full_queue_refused_is_not_recorded(yard_broker):
    broker = yard_broker(shallow_yard(1))

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    job.send()
    refused = job.message()
    with pytest.raises(QueueFull):
        broker.enqueue(refused)

    assert facilities(broker).records.read(refused.message_id) is None


@pytest.mark.parametrize("customer", [7, 2.5, "a/b", "Zoë", "x" * 200, "ü" * 100, None, True])
def test_a_tenant_with_as_many_waiting_as_its_share_allows_is_refused_and_no_other(yard_broker, run_worker, customer):
    share = FairShare("customer", max_depth=2)
    queue = dataclasses.replace(small_yard().queues[0], fair_by=share)
    broker = yard_broker(dataclasses.replace(small_yard(), queues=(queue,)))

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(customer: Any = None) -> None: ...

    limits.declare_fair(broker.families["work"], share, broker.actors.values())
    with pytest.raises(QueueFull, match="'work' holds 0 messages with the same customer of at most 2"):
        broker.enqueue_many([job.message(customer) for _ in range(3)])
    sent = [job.send(customer), job.send(customer=customer)]

    with pytest.raises(QueueFull, match="holds 2 messages"):
        job.send(customer)
    with limits_lifted():  # it follows a job
        sent.append(job.send(customer))
    sent += [job.send("another"), job.send_with_options(args=(customer,), delay=1)]
    with run_worker(broker=broker):
        wait_for(lambda: all(found and found.ended for found in map(facilities(broker).records.read, ids(sent))))
        job.send(customer)


def test_a_job_with_a_unique_key_is_submitted_under_the_id_of_the_unfinished_one(yard_broker, run_worker):
    broker = yard_broker(small_yard(max_retries=0))
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", unique_key=lambda number: f"report-{number}")
    def report(number: int) -> None:
        runs.append(number)
        if number == 9:
            raise RuntimeError("no")

    first = services.submit(report, kwargs={"number": 1})
    assert services.submit(report, kwargs={"number": 1}) == first
    assert services.submit(report, kwargs={"number": 2}) != first
    dead = services.submit(report, kwargs={"number": 9})
    with run_worker(broker=broker):
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 1)
        broker.join("work", timeout=60_000)
        assert services.submit(report, kwargs={"number": 1}) != first, "free again after its end"
        assert services.submit(report, kwargs={"number": 9}) != dead, "free again after its death"
        broker.join("work", timeout=60_000)

    assert sorted(runs) == [1, 1, 2, 9, 9]


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
    yard_broker, run_worker, endpoint, count, down_s, least_ms, most_ms
):
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


def test_what_fails_because_its_circuit_is_open_spends_no_attempt(yard_broker, run_worker):
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


def test_a_worker_closes_a_circuit_that_its_actor_no_longer_declares(yard_broker, run_worker, monkeypatch):
    broker = yard_broker(yard_with())
    monkeypatch.setattr(circuits, "DEPLOY_MS", -60_000)

    @dramatiq.actor(broker=broker, queue_name="work")
    def call(number: int) -> None: ...

    before = circuits.Circuit(Dependency("old", least=1, open_ms=50), 600_000, {"call": 0})
    assert circuits.note_circuit(broker.lane("work")[0], before, "x", "failed") == "opened"
    sent = [call.send(number).message_id for number in range(20)]
    with run_worker("work", broker=broker):
        wait_for(lambda: facilities(broker).records.states(sent) == ["succeeded"] * 20)


def test_errors_of_the_program_open_no_circuit(yard_broker, run_worker):
    broker = yard_broker(yard_with())
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", depends_on="web", max_retries=0)
    def call(number: int) -> None:
        raise FileNotFoundError(number) if number % 2 else ValueError(number)

    sent = [call.send(number).message_id for number in range(12)]
    with run_worker("work", broker=broker):
        wait_for(lambda: records.states(sent) == ["dead"] * 12)


def test_an_actor_names_the_errors_that_count(yard_broker, run_worker):
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


def test_retry_later_lets_all_with_the_value_wait_and_spends_nothing(broker, run_worker):
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


def test_retry_later_for_a_dependency_opens_its_circuit_until_then(yard_broker, run_worker):
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
def test_what_cannot_be_declared_is_refused_with_a_remedy(yard_broker, options, remedy):
    broker = yard_broker(yard_with())

    with pytest.raises(InvalidOption, match=remedy):

        @dramatiq.actor(broker=broker, queue_name="work", **options)
        def call(host: str) -> None: ...
