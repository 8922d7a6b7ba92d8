"""The middleware needs nothing of our own broker: here it runs on Dramatiq's in-memory one."""

import uuid
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker

from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.interface import Facilities, attach
from switchyard.broker.keys import Keys
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.alert_groups import AlertGroups
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.limit_counts import GroupBarriers, RateWindows
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.stores.yard_facts import FactStore
from switchyard.broker.worker.acks import AckBarrier
from switchyard.middleware.wait_for_broker import retry_until_available
from switchyard.wiring import in_order
from tests.factories.yards import small_yard
from tests.integration.middleware.conftest import away
from tests.waiting import wait_for


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
