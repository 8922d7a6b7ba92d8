"""Messages survive faults, and wait where no worker knows them; alerts survive a lost answer; on any broker."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO, Middleware

from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.interface import Facilities, attach, facilities
from switchyard.broker.keys import Keys
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.queue import codec
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.alert_groups import CLAIM, AlertFact, AlertGroups
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.limit_counts import GroupBarriers, RateWindows
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.stores.yard_facts import FactStore
from switchyard.broker.topology import Yard
from switchyard.broker.worker.acks import AckBarrier
from switchyard.embedded.server import EmbeddedServer
from switchyard.middleware.wait_for_broker import retry_until_available
from switchyard.wiring import build_yard, in_order
from tests.chaos.fault_proxy import FaultProxy
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.integration.middleware.conftest import Work, away
from tests.waiting import wait_for


class SlowOnce(Middleware):
    """Added by a project, so its after-hook runs first, while the time limit still counts."""

    def __init__(self) -> None:
        self.was_slow = False

    def after_process_message(self, broker: Any, message: Any, **ended: Any) -> None:
        if not self.was_slow:
            self.was_slow = True
            for _ in range(200):
                time.sleep(0.01)


@pytest.mark.parametrize("fails", [True, False])
def test_a_time_limit_that_fires_in_a_hook_loses_neither_message_nor_thread(works, fails):
    work = works(soft_limit_ms=200, extra=[SlowOnce()])
    runs: list[int] = []

    @work.actor
    def once_broken() -> None:
        runs.append(1)
        if fails and len(runs) == 1:
            raise RuntimeError("the first time")

    with work.run(threads=1) as worker:
        work.until(once_broken.send(), "succeeded")
        alive = [thread.is_alive() for thread in worker.workers]

    assert alive == [True]
    assert len(runs) == (2 if fails else 1)


class Interrupting(Middleware):
    """Leaves its first after-hook with what is no ``Exception``, as a timeout of gevent does."""

    interrupted = False

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        if exception is not None and not self.interrupted:
            self.interrupted = True
            raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failed_message_whose_end_is_interrupted_is_retried(works):
    assert works(extra=[Interrupting()]).runs_until_success() == 2


def test_a_broker_that_is_away_holds_a_dead_letter_until_it_is_back(works, monkeypatch):
    work = works(max_retries=0)
    refused = away(monkeypatch, work.broker.families["work"], "dead_letter", 3)

    @work.actor
    def broken() -> None:
        raise RuntimeError("no")

    with work.run():
        sent = broken.send()
        work.letter(sent)
        work.idle()

    assert (len(refused), work.read(sent).state) == (3, "dead")


def test_a_job_with_a_rate_limit_waits_for_a_broker_that_is_away_without_an_attempt(works, monkeypatch):
    work = works(max_retries=0)
    refused = away(monkeypatch, type(facilities(work.broker).windows), "reserve", 3)

    record = work.end_of(work.actor(lambda: None, actor_name="limited", rate_limit="5/s").send())

    assert (record.state, record.attempts, len(refused)) == ("succeeded", 1, 3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("a text of an error that cannot be made")


def test_an_exception_whose_text_cannot_be_made_is_a_dead_letter(works):
    work = works(max_retries=1)

    @work.actor
    def broken() -> None:
        raise Unprintable

    sent = broken.send()
    record, letter = work.end_of(sent), work.letter(sent)

    assert (letter.exception, letter.attempts) == ("Unprintable", 2)
    assert record.error["type"] == "Unprintable"


def test_a_result_that_is_no_json_ends_the_job_nevertheless(work):
    record = work.end_of(work.actor(lambda: {42}, actor_name="answer", store_results=True).send())

    assert (record.state, record.result) == ("succeeded", None)
    assert record.error["type"] == "ResultNotStored"


def test_a_broker_that_is_away_at_the_end_of_a_job_loses_neither_state_nor_result(work, monkeypatch):
    refused: list[list[str]] = []

    @work.actor(store_results=True)
    def answer() -> int:
        refused.append(away(monkeypatch, work.records, "write"))
        return 42

    record = work.end_of(answer.send())

    assert refused == [["write"]]
    assert (record.state, record.result) == ("succeeded", 42)


def test_a_broker_that_is_away_holds_the_next_step_of_a_pipeline(work, monkeypatch):
    done = threading.Event()
    second = b'{"actor":"second"'
    refused = away(
        monkeypatch, work.broker.families["work"], "enqueue", when=lambda entries: entries[0].body.startswith(second)
    )
    steps = work.actor(lambda: 1, actor_name="first"), work.actor(lambda number: done.set(), actor_name="second")

    with work.run():
        dramatiq.pipeline([step.message() for step in steps], broker=work.broker).run()
        assert done.wait(30)

    assert refused


def test_a_requeued_job_is_not_cancelled_by_what_was_asked_in_its_last_life(works):
    ended = threading.Event()

    class LateNews(Middleware):
        """Records written late: a worker fetches a requeued message before its record is written."""

        def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if message.options.get("generation"):
                ended.wait(30)

        def after_ack(self, broker: Any, message: Any) -> None:
            if message.options.get("generation"):
                ended.set()

    work = works(max_retries=0, extra=[LateNews()])
    runs: list[int] = []

    @work.actor
    def broken_once() -> None:
        runs.append(1)
        if len(runs) == 1:
            cancel(facilities(work.broker), sent.message_id)
            raise RuntimeError("before it saw that it was to stop")

    with work.run():
        sent = broken_once.message()
        work.broker.enqueue(sent)
        work.until(sent)
        wait_for(lambda: work.stats.dead == 1)
        requeue(work.transport, "work", sent.message_id)
        wait_for(ended.is_set)

    assert (len(runs), work.read(sent).state) == (2, "succeeded")


def test_a_full_server_takes_the_end_of_a_job(tmp_path, run_worker, monkeypatch):
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1)
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    with EmbeddedServer(tmp_path / "valkey") as server:
        work = Work(build_yard(small_yard(), connect(server.url), Keys("full")), run_worker)

        @work.actor(store_results=True)
        def fills() -> int:
            work.broker.client.config_set("maxmemory", 1)
            return 42

        with work.run():
            record = work.until(fills.send())
            work.broker.client.config_set("maxmemory", 0)
            work.idle()

    assert (record.state, record.result) == ("succeeded", 42)


def test_a_claim_whose_answer_is_lost_is_made_all_the_same(valkey, valkey_url):
    alerts = AlertGroups(RedisCalls(valkey), Keys("lost"))
    valkey.script_load(CLAIM.text)
    alerts.raise_(_fact())

    with FaultProxy(urlsplit(valkey_url).port or 0) as proxy, connect(proxy.url) as client:
        proxy.drop_reply(of=b"EVALSHA")
        [claimed] = AlertGroups(RedisCalls(client), Keys("lost")).claim_due()

    assert claimed.count == 1
    assert alerts.claim_due() == [], "it is claimed once"
    assert alerts.settle(claimed)


def test_a_group_is_sent_at_once_and_again_as_a_digest_when_it_grew(valkey):
    alerts = AlertGroups(RedisCalls(valkey), Keys("digest"), window_ms=150)
    alerts.raise_(_fact())

    first = alerts.claim_due()
    assert alerts.claim_due() == [], "a claimed group is claimed by one"
    assert alerts.settle(first[0])
    alerts.raise_(_fact())
    alerts.raise_(_fact())
    assert alerts.claim_due() == [], "the window has not ended"
    digest = wait_for(alerts.claim_due)

    assert (first[0].count, first[0].sent_count) == (1, 0)
    assert (digest[0].count, digest[0].sent_count) == (3, 1)
    assert alerts.settle(digest[0])
    wait_for(lambda: alerts.claim_due() == [] and not valkey.keys("digest:*"), what="a quiet group is forgotten")


def _fact() -> AlertFact:
    return AlertFact("f", "dead_letter", "title", "detail", "work", "actor", 0)


class PromptRecords(dramatiq.Middleware):
    """Writer of the steps that our own broker writes after enqueues and before acknowledgements."""

    def __init__(self, barrier: AckBarrier) -> None:
        self._barrier = barrier

    def after_enqueue(self, broker: dramatiq.Broker, message: Any, delay: int | None) -> None:
        self._barrier.flush()

    def before_ack(self, broker: dramatiq.Broker, message: Any) -> None:
        retry_until_available(message, "end of a job", self._barrier.flush)

    after_nack = before_ack


def test_a_failing_job_takes_its_retries_and_ends_in_its_dead_list(valkey, run_worker):
    broker, facilities = _stub_yard(valkey)
    lanes: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken() -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        lanes.append(message.queue_name if message else "?")
        raise RuntimeError("no")

    with run_worker(broker=broker):
        job_id = broken.send().message_id
        wait_for(lambda: facilities.records.read(job_id).state == "dead")

    letter = facilities.transport.find_dead_letter("work", job_id)
    assert lanes == ["work", "work-retry", "work-retry"]
    assert (letter.attempts, len(facilities.alerts.claim_due())) == (3, 1)
    assert broker.dead_letters == [], "Dramatiq keeps a second copy"


def test_a_rate_limit_defers_and_the_job_still_runs(valkey, run_worker):
    broker, facilities = _stub_yard(valkey)

    limited = dramatiq.actor(lambda: None, broker=broker, actor_name="limited", queue_name="work", rate_limit="2/s")

    with run_worker(broker=broker):
        ids = [limited.send().message_id for _ in range(4)]
        wait_for(lambda: all(facilities.records.read(job_id).state == "succeeded" for job_id in ids))


def test_a_cancelled_job_does_not_start_because_its_record_cannot_be_asked(valkey, run_worker, monkeypatch):
    broker, facilities = _stub_yard(valkey)
    runs: list[int] = []
    sent = dramatiq.actor(lambda: runs.append(1), broker=broker, actor_name="job", queue_name="work").send()
    assert cancel(facilities, sent.message_id) == "cancelled"
    with monkeypatch.context() as outage:
        refused = away(outage, facilities.records.calls, "pipeline")
        with run_worker(broker=broker):
            wait_for(lambda: refused)
            broker.join("work", timeout=60_000)

    assert (runs, facilities.records.read(sent.message_id).state) == ([], "cancelled")


def _stub_yard(valkey: Any) -> tuple[StubBroker, Facilities]:
    yard, keys = small_yard(max_retries=2), Keys(prefix=f"test-{uuid.uuid4().hex[:8]}")
    broker = StubBroker(middleware=[])
    calls = RedisCalls(valkey)
    records = JobRecords(calls, keys, [queue.name for queue in yard.queues], finds_waiting=False)
    transport = PortableTransport(broker, yard, DeadLists(calls, keys), Quarantine(calls, keys), records)
    facilities = Facilities(
        yard=yard, transport=transport, records=records, barrier=AckBarrier(records), windows=RateWindows(calls, keys),
        alerts=AlertGroups(calls, keys), pools=PoolReports(calls, keys), facts=FactStore(calls, keys),
        groups=GroupBarriers(calls, keys),
    )  # fmt: skip
    attach(broker, facilities)
    for entry in [PromptRecords(facilities.barrier), *in_order(facilities)]:
        broker.add_middleware(entry)
    for lane in yard.lanes:
        broker.declare_queue(lane)
    return broker, facilities


def test_what_this_code_does_not_know_is_parked_and_runs_when_it_does(valkey, run_worker):
    broker, facilities = _stub_yard(valkey)
    ran: list[int] = []

    dramatiq.actor(lambda: ran.append(-1), broker=broker, queue_name="work", actor_name="report")
    stamped = {"enqueued_at": 1}
    messages = [dramatiq.Message("work", name, (n,), {}, {**stamped}) for n, name in ((1, "audit"), (2, "report"))]
    ids = [broker.enqueue(message).message_id for message in messages]
    with run_worker(broker=broker):
        wait_for(lambda: {facilities.records.read(id_).reason for id_ in ids} == {"parked"})
        rejected = list(broker.dead_letters)
        del broker.actors["report"]  # the process is not another one, but its code is
        for name in ("report", "audit"):
            dramatiq.actor(broker=broker, queue_name="work", actor_name=name)(lambda number: ran.append(number))
        wait_for(lambda: all(facilities.records.read(id_).state == "succeeded" for id_ in ids))

    assert sorted(ran) == [1, 2]
    assert rejected == broker.dead_letters == [], "Dramatiq keeps a second copy"
    assert [facilities.records.read(id_).attempts for id_ in ids] == [1, 1]


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
        wait_for(lambda: deploy.ran)

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


def test_a_suspect_that_old_code_keeps_taking_from_the_isolated_lane_runs_where_new_code_adopts_it(deploy, run_worker):
    family = deploy.old.families["work"]
    deploy.old.declare_queue("work-alone")
    job_id = deploy.audit.send(1).message_id
    family.join("dead/live")
    family.fetch("dead/live", 1, request=1)
    family.reclaim("dead/live", running=[job_id], cause="killed by SIGKILL")
    with run_worker("work-alone", broker=deploy.old), run_worker("work", broker=deploy.new):
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
