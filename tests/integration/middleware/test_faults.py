"""Messages survive faults until their acknowledgement, alerts a lost answer; also on Dramatiq's in-memory broker."""

import threading
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware

from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.interface import Facilities, attach, facilities
from switchyard.broker.keys import Keys
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.alert_groups import CLAIM, AlertFact, AlertGroups
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.limit_counts import GroupBarriers, RateWindows
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.stores.yard_facts import FactStore
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

    assert len(refused) == 3
    assert work.read(sent).state == "dead"


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

    assert len(runs) == 2
    assert work.read(sent).state == "succeeded"


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
    assert letter.attempts == 3
    assert len(facilities.alerts.claim_due()) == 1
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

    assert runs == []
    assert facilities.records.read(sent.message_id).state == "cancelled"


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
