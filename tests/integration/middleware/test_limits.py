"""Limits on what runs at once and on what waits, and limits with a real endpoint that goes down and returns."""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
from switchyard.broker.queue import limits
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.queue.limits import declare_fair, wait_of
from switchyard.broker.topology import Dependency, FairShare
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
from tests.integration.middleware.conftest import Work
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


def ended(work: Work, messages: list[Any], state: str = "succeeded") -> bool:
    found = [work.read(one) for one in messages]
    return all(one is not None and one.state == state for one in found)


def test_two_workers_never_run_more_than_a_limit_allows(valkey, run_worker):
    # As in two processes: what a broker fetches has one owner.
    work, another = (Work(build_yard(small_yard(), valkey, Keys("limits")), run_worker) for _ in range(2))
    running = Running()

    def sync(customer_id: int, host: str = "") -> None:
        running("all", customer_id)

    def other() -> None:
        running("other")

    for each in (work, another):
        limited = each.actor(sync, concurrency=[6, "2 per customer_id"])
        free = each.actor(other)
    sent = [limited.send(number % 5) for number in range(80)]
    others = [free.send() for _ in range(10)]
    with work.run(threads=8), another.run(threads=8):
        wait_for(lambda: ended(work, [*sent, *others]))

    assert max(running.most[customer] for customer in range(5)) == 2
    assert 2 < running.most["all"] <= 6
    assert {work.read(one).attempts for one in sent} == {1}
    family = work.broker.lane("work")[0]
    assert not family.calls.command("EXISTS", family.keys.slots, family.keys.turns)
    assert work.stats.live.scheduled == 0


def test_a_sequence_is_kept_though_some_fail_and_some_die(works):
    work = works(max_retries=1, base_ms=1, cap_ms=2)
    seen: dict[int, list[int]] = {1: [], 2: []}
    failed: set[tuple[int, int]] = set()

    @work.actor(ordered_by="order_id")
    def tell(order_id: int, number: int) -> None:
        if number % 3 == 0 and ((order_id, number) not in failed or number % 6 == 0):
            failed.add((order_id, number))
            raise ConnectionError
        seen[order_id].append(number)

    sent = {(order_id, number): tell.send(order_id, number) for number in range(1, 19) for order_id in (1, 2)}
    good = [one for (_, number), one in sent.items() if number % 6]
    with work.run(threads=8):
        wait_for(lambda: ended(work, good) and ended(work, [sent[1, 18], sent[2, 18]], "dead"))

    assert seen == {key: [number for number in range(1, 19) if number % 6] for key in (1, 2)}


def test_a_job_says_which_limit_it_waits_for(work):
    go_on = threading.Event()

    @work.actor(concurrency="1 per customer_id")
    def sync(customer_id: int) -> None:
        go_on.wait(60)

    with work.run(threads=4):
        sent = [sync.send(7) for _ in range(3)]
        try:
            wait_for(lambda: Counter(work.read(one).state for one in sent) == {"running": 1, "scheduled": 2})
            jobs = [work.read(one) for one in sent]
            assert {one.reason for one in jobs if one.state == "scheduled"} == {"concurrency"}
            family = work.broker.lane("work")[0]
            waits = [wait for one in sent if (wait := wait_of(family, one.message_id)) is not None]
            first, last = sorted(waits, key=lambda one: one.before)
            assert (first.key, first.n, first.taken, first.before) == ("sync customer_id=7", 1, 1, 0)
            assert (last.key, last.n, last.taken, last.before) == ("sync customer_id=7", 1, 1, 1)
            said = limit_sentence(last, arguments=True)
            places = "1 of 1 places taken, 1 job before it, since 20"
            assert said.startswith(f"It waits for a limit: 1 of sync with customer_id=7 at once, {places}")
            assert "customer_id" not in limit_sentence(waits[0], arguments=False)
        finally:
            go_on.set()
        wait_for(lambda: ended(work, sent))


def test_a_rate_counts_for_each_value_and_several_rates_at_once(work):
    started = Counter[str]()

    @work.actor(rate_limit=["100/h", "3/h per host"])
    def call(number: int, host: str = "a") -> None:
        started[host] += 1

    sent = [call.send(number, host) for number in range(5) for host in ("b", "c")]
    sent += [call.send(number) for number in range(5)]

    def ends() -> Counter[Any]:
        return Counter((found.state, found.reason) for one in sent if (found := work.read(one)) is not None)

    with work.run(threads=4):
        wait_for(lambda: ends() == {("succeeded", None): 9, ("scheduled", "rate_limit"): 6})

    assert started == {"a": 3, "b": 3, "c": 3}
    assert {work.read(one).attempts for one in sent} <= {0, 1}
    client, keys = work.broker.client, work.broker.keys
    assert client.zcard(keys.window('call host="b"')) == 5
    assert client.zcard(keys.window("call")) == 15


def test_a_rate_counts_by_a_redacted_value_without_showing_it(work):
    started = Counter[str]()

    @work.actor(rate_limit="1/h per to", redact=("to",))
    def mail(to: str) -> None:
        started[to] += 1

    sent = [mail.send(to) for to in ("a@x.example", "b@x.example", "a@x.example")]
    with work.run():
        wait_for(lambda: sum(ended(work, [one], "scheduled") for one in sent) == 1 and len(started) == 2)

    assert set(started.values()) == {1}
    assert not [name for name in work.broker.client.keys("*") if b"x.example" in name]


@pytest.mark.parametrize(("name", "value"), [("concurrency", "5 per {}"), ("ordered_by", "{}")])
@pytest.mark.parametrize(
    ("argument", "fact"),
    [("secret", "secret is in redact, and would be shown; name another"), ("sekret", r"did you mean 'secret'\?")],
)
def test_an_argument_that_cannot_be_a_key_is_refused(name, value, argument, fact):
    broker, option = StubBroker(middleware=in_order(facilities())), {name: value.format(argument)}

    with pytest.raises(InvalidOption, match=fact):
        dramatiq.actor(lambda secret: None, actor_name="job", broker=broker, redact=("secret",), **option)


def test_the_actors_of_the_guide_keep_their_limits(work):
    block, *_ = code_blocks(read("docs/how-to/limit-what-runs-at-once.md"), "python")
    names: dict[str, Any] = {}
    with the_global_broker(work.broker):
        exec(compile(block, "limit-what-runs-at-once.md", "exec"), names)
    shown, seen, running = SimpleNamespace(**names), [], Running()
    shown.reconcile.fn = lambda month: running("reconcile")
    shown.tell_shop.fn = lambda order_id, state: seen.append((order_id, state))

    with work.run(threads=8):
        sent = [shown.reconcile.send(f"2026-{month:02}") for month in range(1, 13)]
        sent += [shown.tell_shop.send(1, str(number)) for number in range(12)]
        sent += [shown.sync.send("eu", number) for number in range(12)]
        wait_for(lambda: ended(work, sent))

    assert running.most["reconcile"] == 1
    assert seen == [(1, str(number)) for number in range(12)]


def test_the_fair_queue_of_the_guide_serves_its_customers_in_turn(yard_broker, run_worker):
    names: dict[str, Any] = {}
    exec(compile(code_blocks(read("docs/how-to/limit-what-runs-at-once.md"), "python")[1], "guide", "exec"), names)
    yard = small_yard()
    pools = (replace(yard.pools[0], queues=("exports", "mails")), yard.pools[1])
    broker = yard_broker(replace(yard, queues=(names["EXPORTS"], names["MAILS"]), pools=pools))
    work = Work(broker, run_worker)
    started: dict[str, list[int]] = {"exports": [], "mails": []}

    def note(queue: str, customer_id: int) -> None:
        started[queue].append(customer_id)

    export = work.actor(partial(note, "exports"), actor_name="export", queue_name="exports")
    mail = work.actor(partial(note, "mails"), actor_name="mail", queue_name="mails")
    for queue in ("exports", "mails"):  # as workers that ran before have declared it
        own = [each for each in broker.actors.values() if each.queue_name == queue]
        declare_fair(broker.lane(queue)[0], broker.fair[queue], own)
    sent = [each.send(customer_id=customer) for customer in (7, 8) for each in (export, mail) for _ in range(40)]
    with work.run(threads=1):
        wait_for(lambda: ended(work, sent))

    assert Counter(started["exports"][:20])[8] == 5
    assert Counter(started["mails"][:20])[8] == 10
    assert Counter(started["exports"]) == {7: 40, 8: 40}


def test_the_next_step_of_a_pipeline_and_a_retry_go_into_a_full_queue(yard_broker, run_worker):
    shallow = replace(small_yard().queues[0], max_depth=1)
    work = Work(yard_broker(replace(small_yard(), queues=(shallow,))), run_worker)
    started, full, done = threading.Event(), threading.Event(), threading.Event()

    @work.actor
    def first() -> int:
        if not started.is_set():
            started.set()
            full.wait(60)
            raise RuntimeError("the first time")
        return 1

    second = work.actor(lambda number: done.set(), actor_name="second")
    filler = work.actor(lambda: None, actor_name="filler")
    with work.run(threads=1):
        dramatiq.pipeline([first.message(), second.message()], broker=work.broker).run()
        assert started.wait(30)
        filler.send_with_options(delay=60_000)
        refused = filler.message()
        with pytest.raises(QueueFull, match="'work' holds 1 messages of at most 1"):
            work.broker.enqueue(refused)
        assert work.read(refused) is None
        full.set()
        assert done.wait(30)


@pytest.mark.parametrize("customer", [7, 2.5, "a/b", "Zoë", "x" * 200, "ü" * 100, None, True])
def test_a_tenant_with_as_many_waiting_as_its_share_allows_is_refused_and_no_other(yard_broker, run_worker, customer):
    share = FairShare("customer", max_depth=2)
    queue = replace(small_yard().queues[0], fair_by=share)
    work = Work(yard_broker(replace(small_yard(), queues=(queue,))), run_worker)

    @work.actor
    def job(customer: Any = None) -> None: ...

    declare_fair(work.broker.families["work"], share, work.broker.actors.values())
    with pytest.raises(QueueFull, match="'work' holds 0 messages with the same customer of at most 2"):
        work.broker.enqueue_many([job.message(customer) for _ in range(3)])
    sent = [job.send(customer), job.send(customer=customer)]

    with pytest.raises(QueueFull, match="holds 2 messages"):
        job.send(customer)
    with limits_lifted():  # it follows a job
        sent.append(job.send(customer))
    sent += [job.send("another"), job.send_with_options(args=(customer,), delay=1)]
    with work.run():
        for one in sent:
            work.until(one)
        job.send(customer)


def test_a_job_with_a_unique_key_is_submitted_under_the_id_of_the_unfinished_one(works):
    work, runs = works(max_retries=0), list[int]()

    @work.actor(unique_key=lambda number: f"report-{number}")
    def report(number: int) -> None:
        runs.append(number)
        if number == 9:
            raise RuntimeError("no")

    def submitted(number: int) -> str:
        return services.submit(report, kwargs={"number": number})

    first = submitted(1)
    assert submitted(1) == first
    assert submitted(2) != first
    dead = submitted(9)
    with work.run():
        wait_for(lambda: work.stats.dead == 1)
        work.broker.join("work", timeout=60_000)
        assert submitted(1) != first, "free again after its end"
        assert submitted(9) != dead, "free again after its death"
        work.broker.join("work", timeout=60_000)

    assert sorted(runs) == [1, 1, 2, 9, 9]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening_endpoint() as made:
        yield made


@pytest.fixture
def web(yard_broker, run_worker) -> Callable[..., Work]:
    """Make a small yard with a dependency: ``web("name", open_ms=…)``."""

    def make(name: str = "web", **options: Any) -> Work:
        dependencies = (Dependency(name, least=5, **options),)
        return Work(yard_broker(replace(small_yard(), dependencies=dependencies)), run_worker)

    return make


# The long one has the defaults of a dependency, and prints what a person wants to know.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("count", "down_s", "least_ms", "most_ms"),
    [(300, 0, 100, 200), pytest.param(5_000, 60, 2_000, 10_000, marks=pytest.mark.long)],
)
def test_what_waits_for_an_endpoint_costs_few_attempts_and_all_of_it_arrives(
    web, endpoint, count, down_s, least_ms, most_ms
):
    dependency = f"web-{count}"  # its metrics are those of the process
    work = web(dependency, open_ms=least_ms, longest_open_ms=most_ms)
    records = work.records
    [metrics] = [entry for entry in work.broker.middleware if isinstance(entry, Metrics)]

    @work.actor(depends_on=f"{dependency} per host", max_retries=3)
    def call(host: str, number: int) -> None:
        calls_host(f"{host}.example")
        try:
            urlopen(endpoint.url(f"{host}/{number}"), timeout=10).close()
        except HTTPError as error:
            error.close()
            raise

    def sample(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"switchyard_{name}_total", labels)

    def broken() -> list[str]:
        return [path for path in endpoint.asked if path.startswith("/broken")]

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

    def wait_for_all(ids: list[str]) -> None:
        # The records of all are asked once: thousands of them, read ten times a second, take the worker's processor.
        wait_for(lambda: len(endpoint.asked) - asked_before >= len(ids), 120)
        wait_for(lambda: records.states(ids) == ["succeeded"] * len(ids), 120)

    with work.run("work", "work-retry", threads=8):
        before_ms = took_ms()
    endpoint.down.set()
    began_s = time.monotonic()
    sent = [call.send("broken", number).message_id for number in range(count)]
    others = [call.send("fine", number).message_id for number in range(50)]
    with work.run("work", "work-retry", threads=8):
        wait_for(lambda: records.states(others) == ["succeeded"] * 50)
        wait_for(lambda: work.stats.live.waiting == 0)
        wait = dict(enumerate(map(records.read, sent[-100:]), count - 100))
        reached_down = broken()
        put_off = [found for number, found in wait.items() if found and f"/broken/{number}" not in reached_down]
        assert {(each.state, each.reason, each.attempts) for each in put_off} == {("scheduled", "circuit_open", 0)}
        assert len(reached_down) <= 30
        while_down_ms = took_ms()
        wait_for(lambda: time.monotonic() - began_s >= down_s, 90)
        reached_down = broken()
        endpoint.down.clear()
        back_s, asked_before = time.monotonic(), len(endpoint.asked)
        wait_for_all(sent)
        took_s, began_s, asked_before = time.monotonic() - back_s, time.monotonic(), len(endpoint.asked)
        wait_for_all([call.send("fine", number).message_id for number in range(count if down_s else 0)])
        print(
            f"{count} calls: {len(reached_down)} while down, all {took_s:.1f} s after its return; "
            f"undisturbed they take {time.monotonic() - began_s:.1f} s; another host: {before_ms} ms before "
            f"and {while_down_ms} ms meanwhile (p50 and p99)"
        )

    assert {f"/broken/{number}" for number in range(count)} <= set(endpoint.asked)
    spent = sum(record.attempts for record in map(records.read, sent) if record is not None)
    # Some calls failed while the circuit was open, or did not start because it was.
    assert len(broken()) - (sample("messages", queue="work", actor="call", outcome="deferred") or 0) <= spent
    assert spent <= len(broken())
    assert sample("circuit_openings", queue="work", dependency=dependency)
    ends = ("failed", "answered")
    failed, answered = (sample("dependency_calls", dependency=dependency, outcome=end) for end in ends)
    assert failed == len(reached_down)
    assert answered == len(endpoint.asked) - len(reached_down)
    by_host = {
        (host, end): sample("dependency_host_calls", dependency=dependency, host=f"{host}.example", outcome=end)
        for host in ("broken", "fine")
        for end in ends
    }
    assert (by_host["broken", "failed"], by_host["fine", "failed"]) == (failed, None)
    assert (by_host["broken", "answered"] or 0) + (by_host["fine", "answered"] or 0) == answered


def test_what_fails_because_its_circuit_is_open_spends_no_attempt(web):
    work = web(open_ms=60_000, longest_open_ms=60_000)
    slow, go = threading.Event(), threading.Event()

    @work.actor(depends_on="web", max_retries=0)
    def call(name: str) -> None:
        if name == "slow":
            slow.set()
            go.wait(60)
        raise ConnectionRefusedError(name)

    held = call.send("slow")
    with work.run("work", "work-retry"):
        slow.wait(60)
        for quick in [call.send("quick") for _ in range(5)]:
            work.until(quick, "dead")
        go.set()
        waits = work.until(held, reason="circuit_open")

    assert (waits.state, waits.attempts, waits.next_attempt_at) == ("scheduled", 0, None)


def test_a_worker_closes_a_circuit_that_its_actor_no_longer_declares(web, monkeypatch):
    work = web()
    monkeypatch.setattr(limits, "DEPLOY_MS", -60_000)

    @work.actor
    def call(number: int) -> None: ...

    before = limits.Circuit(Dependency("old", least=1, open_ms=50), 600_000, {"call": 0})
    assert limits.note_circuit(work.broker.lane("work")[0], before, "x", "failed") == "opened"
    sent = [call.send(number) for number in range(20)]
    with work.run("work"):
        wait_for(lambda: ended(work, sent))


def test_errors_of_the_program_open_no_circuit(web):
    work = web()

    @work.actor(depends_on="web", max_retries=0)
    def call(number: int) -> None:
        raise FileNotFoundError(number) if number % 2 else ValueError(number)

    sent = [call.send(number) for number in range(12)]
    with work.run("work"):
        wait_for(lambda: ended(work, sent, "dead"))


def test_an_actor_names_the_errors_that_count(web):
    work = web(open_ms=60_000, longest_open_ms=60_000)

    @work.actor(depends_on="web", outage=(LookupError,), max_retries=0)
    def call(number: int) -> None:
        raise KeyError(number) if number > 10 else ConnectionError(number)

    with work.run("work", threads=1):
        for numbers in (range(10), range(20, 25)):
            sent = [call.send(number) for number in numbers]
            wait_for(lambda sent=sent: ended(work, sent, "dead"))
        work.until(call.send(30), reason="circuit_open")


def test_retry_later_lets_all_with_the_value_wait_and_spends_nothing(work):
    ran: list[int] = []

    @work.actor(max_retries=0)
    def sync(customer_id: int, number: int = 0) -> None:
        ran.append(customer_id)
        if len(ran) == 1:
            raise RetryLater(1, "asks for a second", per="customer_id")

    first = sync.send(7)
    with work.run("work", threads=1):
        assert work.until(first, reason="actor_paused").attempts == 0
        sent = [first, sync.send(7, 1), sync.send(8)]
        wait_for(lambda: ended(work, sent))

    assert (ran[1], sorted(ran[2:]), work.read(first).attempts) == (8, [7, 7], 1)


def test_retry_later_for_a_dependency_opens_its_circuit_until_then(web):
    work, ran = web(), list[int]()

    @work.actor(depends_on="web", max_retries=0)
    def call(number: int) -> None:
        ran.append(number)
        if len(ran) == 1:
            raise RetryLater(1, "asks for a second", per="web")

    @work.actor(depends_on="web")
    def other(x: int, number: int) -> None:
        call.fn(number)

    sent = [call.send(1), *(other.send(0, number) for number in range(4))]
    with work.run("work", threads=1):
        wait_for(lambda: [found.reason for found in map(work.read, sent) if found] == ["circuit_open"] * 5)
        wait_for(lambda: ended(work, sent))

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
def test_what_cannot_be_declared_is_refused_with_a_remedy(web, options, remedy):
    with pytest.raises(InvalidOption, match=remedy):
        web().actor(lambda host: None, actor_name="call", **options)
