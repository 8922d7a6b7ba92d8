"""Messages for other code than the worker's are parked until one knows them; deploys: `workers/test_rolling.py`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.middleware import AsyncIO

from switchyard.broker.interface import facilities
from switchyard.broker.queue import codec
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Yard
from switchyard.wiring import build_yard
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.waiting import wait_for


class Deploy:
    """Old and new code on the same queue, each with a broker of its own.

    The old code has ``report(month)``; the new one ``report(month, *, language)`` and ``audit(number)``.
    """

    def __init__(self, old: RedisBroker, yard: Yard) -> None:
        self.old, self.new = old, build_yard(yard, old.client, old.keys)
        for broker in (self.old, self.new):  # its event loop is the process's: there is one worker in a process
            broker.middleware[:] = [each for each in broker.middleware if not isinstance(each, AsyncIO)]
        self.transport = facilities(old).transport
        self.ran: list[tuple[str, Any]] = []

        def report(month: str) -> None:
            self.ran.append(("old", month))

        def new_report(month: str, *, language: str) -> None:
            self.ran.append(("new", (month, language)))
            if language == "fails":
                raise RuntimeError("the first time")

        def audit(number: int) -> None:
            self.ran.append(("new", number))

        dramatiq.actor(broker=self.old, queue_name="work")(report)
        self.new_report = dramatiq.actor(broker=self.new, queue_name="work", actor_name="report")(new_report)
        self.audit = dramatiq.actor(broker=self.new, queue_name="work")(audit)

    def record(self, job_id: str) -> Any:
        return facilities(self.old).records.read(job_id)

    def is_parked(self, job_id: str) -> bool:
        """Say whether a job's record says so."""
        return (self.record(job_id).state, self.record(job_id).reason) == ("scheduled", "parked")


@contextmanager
def busy(deploy: Deploy, run_worker: Any, count: int = 1) -> Iterator[threading.Event]:
    """Run a worker with new code that is full until the event is set."""
    gate, entered = threading.Event(), threading.Semaphore(0)

    @dramatiq.actor(broker=deploy.new, queue_name="work")
    def slow() -> None:
        entered.release()
        gate.wait(60)

    with run_worker(broker=deploy.new, threads=1):
        for _ in range(count):
            slow.send()
        assert entered.acquire(timeout=30)
        yield gate


@pytest.fixture
def deploy(yard_broker) -> Deploy:
    yard = small_yard()
    return Deploy(yard_broker(yard), yard)


def test_a_new_worker_that_is_idle_or_full_takes_what_is_parked_before_it_is_due(deploy, run_worker):
    with busy(deploy, run_worker) as gate, run_worker(broker=deploy.old):
        ids = [deploy.audit.send(number).message_id for number in range(20)]
        wait_for(lambda: sum(map(deploy.is_parked, ids)) >= 18)  # the full one may have one or two in stock
        gate.set()
        wait_for(lambda: all(deploy.record(job_id).state == "succeeded" for job_id in ids))

    assert sorted(number for _, number in deploy.ran) == list(range(20))


def test_without_a_worker_that_knows_it_a_message_is_dead_and_says_why(deploy, run_worker, monkeypatch):
    monkeypatch.setattr("switchyard.broker.transport.LEAST_PARKED_MS", 100)
    monkeypatch.setattr("switchyard.middleware.parking.GIVE_UP_MS", 500)
    with run_worker(broker=deploy.old):
        ids = [deploy.audit.send(1).message_id, deploy.new_report.send("May", language="de").message_id]
        deploy.old.actors["report"].send("June")
        letters = [wait_for(lambda id_=id_: deploy.transport.find_dead_letter("work", id_)) for id_ in ids]
        wait_for(lambda: all(deploy.record(job_id).state == "dead" for job_id in ids))

    assert [(letter.reason, letter.exception, letter.attempts) for letter in letters] == [
        ("permanent", "UnknownActor", 0),
        ("permanent", "ArgumentMismatch", 0),
    ]
    assert "actor audit: " in letters[0].error and "deploy code that has it" in letters[0].error
    assert "actor report: got an unexpected keyword argument 'language'" in letters[1].error
    assert all("parked_ms" not in letter.message["options"] for letter in letters)
    assert deploy.ran == [("old", "June")], "they block nothing"
    assert deploy.transport.stats("work").quarantined == 0
    assert len(facilities(deploy.old).alerts.claim_due()) == 2


def test_a_message_that_some_worker_knows_is_not_given_up_however_long_it_waits_for_it(deploy, run_worker, monkeypatch):
    monkeypatch.setattr("switchyard.broker.transport.LEAST_PARKED_MS", 50)
    monkeypatch.setattr("switchyard.broker.queue.unroutable.FIND_ADOPTABLE_S", 0.05)
    with busy(deploy, run_worker, 3) as gate:  # one runs, two are in stock
        wait_for(lambda: deploy.transport.stats("work").live.running >= 2)
        with run_worker("work", broker=deploy.old):
            monkeypatch.setattr("switchyard.middleware.parking.GIVE_UP_MS", 400)
            job_id = deploy.audit.send(1).message_id
            raw = deploy.old.families["work"]
            wait_for(lambda: _parked_ms(raw, job_id) > 2_000)
            gate.set()
            wait_for(lambda: deploy.record(job_id).state == "succeeded")

    assert deploy.transport.stats("work").dead == 0


def test_a_retry_that_meets_old_code_keeps_its_attempts_and_says_that_it_is_parked(deploy, run_worker):
    with run_worker("work", broker=deploy.new):
        job_id = deploy.new_report.send("May", language="fails").message_id
        wait_for(lambda: deploy.record(job_id).state == "retrying")
    with run_worker("work-retry", broker=deploy.old):
        wait_for(lambda: deploy.is_parked(job_id))
    parked = deploy.record(job_id)
    with run_worker("work-retry", broker=deploy.new):
        wait_for(lambda: deploy.record(job_id).attempts >= 2)

    assert parked.attempts == 1
    assert deploy.ran[:2] == [("new", ("May", "fails"))] * 2


def test_a_step_of_a_pipeline_for_new_code_is_sent_by_an_old_worker_and_waits_for_a_new_one(deploy, run_worker):
    done: list[Any] = []

    @dramatiq.actor(broker=deploy.old, queue_name="work")
    def first() -> str:
        return "May"

    def second(month: str, *, language: str, retries: int = 0) -> None:
        done.append((month, language))

    @dramatiq.actor(broker=deploy.old, queue_name="work", actor_name="second")
    def old_second(month: str) -> None:
        done.append("with the wrong arguments")

    new_second = dramatiq.actor(broker=deploy.new, queue_name="work")(second)
    dramatiq.actor(broker=deploy.new, queue_name="work", actor_name="first")(lambda: "May")
    with run_worker(broker=deploy.old):
        chain = first.message() | new_second.message(language="de")
        dramatiq.pipeline([chain], broker=deploy.new).run()
        wait_for(lambda: deploy.transport.stats("work").parked == 1)
        with run_worker(broker=deploy.new):
            wait_for(lambda: done)

    assert done == [("May", "de")]


@pytest.mark.parametrize("name", ["on_success", "on_failure"])
def test_a_callback_of_new_code_is_sent_by_an_old_worker_and_waits_for_a_new_one(deploy, run_worker, name):
    told: list[Any] = []

    def first() -> int:
        if name == "on_failure":
            raise ValueError("no vat rate")
        return 7

    dramatiq.actor(broker=deploy.old, queue_name="work", max_retries=0)(first)
    new_first = dramatiq.actor(broker=deploy.new, queue_name="work", max_retries=0)(first)

    @dramatiq.actor(broker=deploy.new, queue_name="work")
    def tell(message: dict[str, Any], outcome: Any) -> None:
        told.append((message["actor_name"], outcome))

    with run_worker(broker=deploy.old):
        new_first.send_with_options(**{name: "tell"})
        wait_for(lambda: deploy.transport.stats("work").parked == 1)
        with run_worker(broker=deploy.new):
            wait_for(lambda: told)

    assert told == [("first", 7 if name == "on_success" else {"type": "ValueError", "message": "no vat rate"})]


def test_a_parked_message_that_is_cancelled_never_starts(deploy, run_worker):
    with run_worker(broker=deploy.old):
        job_id = deploy.audit.send(1).message_id
        wait_for(lambda: deploy.is_parked(job_id))
        wait_for(lambda: deploy.transport.stats("work").parked == 1)  # listed after it was moved
        assert deploy.transport.cancel("work", job_id) == "cancelled"
        last = deploy.audit.send(2).message_id
        with run_worker(broker=deploy.new):
            wait_for(lambda: deploy.record(last).state == "succeeded")

    assert deploy.ran == [("new", 2)]
    assert deploy.transport.stats("work").parked == 0


def test_a_suspect_that_old_code_would_run_alone_waits_where_new_workers_look(deploy, run_worker):
    family = deploy.old.families["work"]
    deploy.old.declare_queue("work-alone")
    job_id = deploy.audit.send(1).message_id
    family.join("dead/live")
    [granted] = family.fetch("dead/live", 1, request=1).grants
    family.isolate(granted.lease)
    with run_worker("work-alone", broker=deploy.old):
        wait_for(lambda: deploy.is_parked(job_id))
        wait_for(lambda: deploy.transport.stats("work").parked == 1)  # listed after it was moved
    with run_worker("work", broker=deploy.new):
        wait_for(lambda: deploy.ran == [("new", 1)])


def test_a_requeued_letter_is_parked_anew(deploy, run_worker, monkeypatch):
    with monkeypatch.context() as hasty:
        hasty.setattr("switchyard.broker.transport.LEAST_PARKED_MS", 50)
        hasty.setattr("switchyard.middleware.parking.GIVE_UP_MS", 100)
        with run_worker(broker=deploy.old):
            job_id = deploy.audit.send(1).message_id
            wait_for(lambda: deploy.transport.find_dead_letter("work", job_id))
    with run_worker(broker=deploy.old):
        requeue(deploy.transport, "work", job_id)
        wait_for(lambda: deploy.is_parked(job_id))
        with run_worker(broker=deploy.new):
            wait_for(lambda: deploy.record(job_id).state == "succeeded")

    assert deploy.ran == [("new", 1)]


@pytest.mark.parametrize("rubbish", ["rubbish", -(10**12), 10**30])
def test_rubbish_in_the_option_that_counts_parking_does_no_harm(deploy, run_worker, rubbish):
    stamped = {"enqueued_at": 1, "parked_ms": rubbish}
    message: Message[Any] = Message("work", "audit", (1,), {}, stamped)

    deploy.new.enqueue(message)

    with run_worker(broker=deploy.old):
        wait_for(lambda: deploy.transport.stats("work").parked == 1)
    assert 0 < _parked_ms(deploy.new.families["work"], message.message_id) < 60_000
    with run_worker(broker=deploy.new):
        wait_for(lambda: deploy.ran == [("new", 1)])


def _parked_ms(family: Any, job_id: str) -> int:
    body = family.calls.command("HGET", family.keys.bodies, job_id)
    return codec.decode(body, message_id=job_id, lane="work").options.get("parked_ms", 0) if body else 0
