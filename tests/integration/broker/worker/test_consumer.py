"""Consumers of a worker and what they acknowledge: they share room, lose nothing taken, and write each record first."""

import threading
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.message import Message

from switchyard.broker.consumer import Consumer
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import Entry, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import (
    ENDED,
    EndedJob,
    Failure,
    LiveJob,
    Step,
    decode_rows,
    ended_step,
    live_step,
)
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.worker.acks import MANY, AckBarrier, Acks
from switchyard.broker.worker.prefetch import Wakeup
from switchyard.embedded.server import EmbeddedServer
from switchyard.wiring import build_yard
from tests.chaos.load import let_pass
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def put(broker: RedisBroker, id_: str, *, lane: Any = "live") -> None:
    family = broker.families["work"]
    message: Message[Any] = Message(family.keys.lane_name(lane), "job", (), {}, {})
    family.enqueue([Entry(id_, codec.encode(message))], lane=lane)


def held_of(broker: RedisBroker) -> list[Lease]:
    family = broker.families["work"]
    return [lease for owner in family.owners() for lease in family.held(owner)]


def listening(consumer: Consumer) -> bool:
    return consumer._wakeup.pending


def listen(consumer: Consumer) -> None:
    """Have a consumer of an empty lane wait for its bell. On a busy machine its timeout may pass before it does."""
    wait_for(lambda: next(consumer) is None and listening(consumer))


def block_for_30_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a wait that nobody ends take longer than a busy machine takes for anything."""
    monkeypatch.setattr("switchyard.broker.worker.prefetch.LONGEST_BLOCK_S", 30)
    monkeypatch.setattr("switchyard.broker.worker.prefetch.SILENT_S", 40.0)


def test_a_lane_that_is_consumed_later_waits_for_no_room(broker):
    alone = broker.consume("work", prefetch=4)
    thread = threading.Thread(target=lambda: next(alone), daemon=True)
    thread.start()
    wait_for(lambda: listening(alone))
    put(broker, "retry-1", lane="retry")

    found = next(broker.consume("work-retry", prefetch=4, timeout=30_000))
    put(broker, "last")
    thread.join(30)

    assert found is not None and found.message_id == "retry-1"


def test_what_only_the_former_server_acknowledged_is_released_to_its_lane(broker, monkeypatch):
    consumer = broker.consume("work", prefetch=4)
    put(broker, "held")
    put(broker, "forgotten")
    held, forgotten = next(consumer), next(consumer)
    assert held is not None and forgotten is not None
    del broker.in_flight["forgotten"]  # its acknowledgement went to the former server
    put(broker, "next")

    monkeypatch.setattr(RedisCalls, "server_changes", 1)
    found = [next(consumer), next(consumer)]

    assert [message.message_id for message in found if message] == ["forgotten", "next"]


def test_a_second_worker_leaves_alone_what_another_has_fetched_and_not_yet_started(broker):
    found = []
    for number in range(4):
        put(broker, f"m{number}")

    def consume() -> None:  # as each worker does in a thread of its own
        consumer = broker.consume("work", prefetch=4, timeout=50)
        found.append(next(consumer))
        consumer.close()

    first = broker.consume("work", prefetch=8)
    mine = [next(first)]
    for _ in range(2):
        thread = threading.Thread(target=consume)
        thread.start()
        thread.join()
    mine += [next(first) for _ in range(3)]

    assert found == [None, None]
    assert [message.message_id for message in mine if message] == ["m0", "m1", "m2", "m3"]
    assert len(broker.families["work"].owners()) == 2  # the third consumer has that of the second


def test_a_consumer_that_is_closed_twice_counts_once(broker):
    first, second = broker.consume("work"), broker.consume("work-retry")

    first.close()
    first.close()

    assert broker.credit_of("work").consumers == 1
    second.close()


def test_a_worker_of_many_lanes_never_waits_for_a_bell_that_rang(broker, run_worker, monkeypatch):
    block_for_30_s(monkeypatch)
    done = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        done.set()

    for _ in range(15):
        done.clear()
        with run_worker(broker=broker):
            job.send()
            assert done.wait(15), "a wait for a bell that rang ends after 30 s"


def test_a_share_whose_interruption_comes_late_ends_no_consumer(broker, monkeypatch):
    consumer = broker.consume("work", prefetch=4, timeout=200)
    request, interruptions = Wakeup.request, [BrokerUnavailable("BLPOP", "Broken pipe")]

    def interrupted(self: Wakeup, *command: Any) -> None:
        if interruptions:
            raise interruptions.pop()
        request(self, *command)

    monkeypatch.setattr(Wakeup, "request", interrupted)
    consumer.share()

    listen(consumer)

    assert interruptions == []


def test_a_share_that_is_noticed_before_its_interruption_ends_no_consumer(broker, monkeypatch):
    consumer = broker.consume("work", prefetch=4, timeout=500)
    listen(consumer)
    request, interrupt = Wakeup.request, Wakeup.interrupt
    interrupting, requested = threading.Event(), threading.Event()

    def interrupt_late(self: Wakeup) -> None:
        interrupting.set()
        requested.wait(0.3)  # time for a consumer to listen anew, which it must not before this is over
        interrupt(self)

    def noted_request(self: Wakeup, *command: Any) -> None:
        request(self, *command)
        requested.set()

    monkeypatch.setattr(Wakeup, "interrupt", interrupt_late)
    monkeypatch.setattr(Wakeup, "request", noted_request)
    other = threading.Thread(target=consumer.share)
    other.start()
    assert interrupting.wait(30)

    assert next(consumer) is None

    other.join()
    assert next(consumer) is None
    assert listening(consumer)


def test_what_a_fetch_brought_in_the_moment_of_a_drain_goes_back(broker):
    consumer = broker.consume("work", prefetch=4, timeout=50)
    listen(consumer)
    put(broker, "came")
    wait_for(lambda: held_of(broker))

    broker.drain()

    assert next(consumer) is None
    assert held_of(broker) == []
    assert facilities(broker).transport.stats("work").live.waiting == 1


def test_a_drain_that_cannot_ask_what_it_holds_asks_again(broker, monkeypatch):
    consumer = broker.consume("work", prefetch=4, timeout=50)
    listen(consumer)
    put(broker, "came")
    wait_for(lambda: held_of(broker))

    def refuse(owner: str) -> None:
        raise BrokerUnavailable("held", "connection refused")

    with monkeypatch.context() as away:
        away.setattr(broker.families["work"], "held", refuse)
        broker.drain()
        assert next(consumer) is None
    assert next(consumer) is None
    assert facilities(broker).transport.stats("work").live.waiting == 1


def test_credit_is_shared_although_another_process_takes_the_wake_up(broker, valkey, monkeypatch):
    block_for_30_s(monkeypatch)
    bell, waiter = broker.families["work"].keys.wakeup("live"), valkey.client()
    own = str(waiter.client_id())
    other = threading.Thread(target=lambda: waiter.blpop([bell], 60), daemon=True)
    other.start()  # first in line for the wake-up of the live lane
    wait_for(lambda: [each for each in valkey.client_list() if each["id"] == own and "b" in each["flags"]])
    first = broker.consume("work", prefetch=1)
    thread = threading.Thread(target=lambda: next(first), daemon=True)
    thread.start()
    wait_for(lambda: listening(first))
    put(broker, "retry-1", lane="retry")

    found = next(broker.consume("work-retry", prefetch=1, timeout=20_000))
    broker.drain()  # ends the first one's search for room
    valkey.rpush(bell, "the end")
    for each in (thread, other):
        each.join(30)
        assert not each.is_alive()
    first.close()

    assert found is not None, "the listening consumer kept its credit until its own wait ended"


@pytest.mark.parametrize("listens", [False, True])
def test_a_report_that_fails_costs_no_room(broker, monkeypatch, listens):
    consumer = broker.consume("work", prefetch=4, timeout=500)
    free = broker.credit_of("work")._free
    if listens:
        listen(consumer)
    put(broker, "one")
    with monkeypatch.context() as patched:
        patched.setattr(broker, "report_stale", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wait_for(lambda: next(consumer))
    consumer.close()

    again = broker.consume("work", prefetch=4, timeout=30_000)
    found = next(again)

    assert found is not None and found.message_id == "one"
    again.requeue([found])
    again.close()
    assert broker.credit_of("work")._free == free


def test_a_delayed_message_runs_although_the_server_was_away_meanwhile(tmp_path, run_worker, monkeypatch):
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    server = EmbeddedServer(tmp_path / "valkey").start()
    try:
        broker = build_yard(small_yard(), connect(server.url), Keys("limbo"))
        done = threading.Event()

        @dramatiq.actor(broker=broker, queue_name="work")
        def job() -> None:
            done.set()

        with run_worker(broker=broker):
            job.send_with_options(delay=3_000)
            wait_for(lambda: facilities(broker).transport.stats("work").live.scheduled == 1)
            server.stop()
            let_pass(1.5)
            server.start()
            assert done.wait(30)
    finally:
        server.stop()


@pytest.mark.parametrize("lane", ["work", "work-retry"])
def test_messages_whose_fetch_was_answered_into_nowhere_come_to_the_next_consumer(broker, lane):
    family, which = broker.lane(lane)
    before = broker.consume(lane, prefetch=4, timeout=1)
    assert next(before) is None
    (owner,) = family.owners()
    body = codec.encode(Message("work", "broken", (), {}, {}))
    family.enqueue([Entry(f"job-{number}", body) for number in range(2)], lane=which)
    family.fetch(owner, 2, request=1)  # whose answer nobody reads; or that of the fetch which the consumer sent ahead
    wait_for(lambda: len(family.held(owner)) == 2)

    before.close()
    after = broker.consume(lane, prefetch=4)
    found = [next(after), next(after)]

    assert [message and message.message_id for message in found] == ["job-0", "job-1"]


def test_a_running_message_is_not_taken_for_lost(broker, run_worker):
    starts: list[int] = []
    end = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def long() -> None:
        starts.append(1)
        end.wait(1.0)

    with run_worker(broker=broker, threads=1):
        for _ in range(2):
            long.send()
        wait_for(lambda: len(starts) == 2)
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    assert len(starts) == 2


def test_a_consumer_that_stops_gives_back_what_it_had_not_handed_out(broker):
    for number in range(3):
        put(broker, f"m{number}")
    consumer = broker.consume("work", prefetch=3)
    handed_out = next(consumer)
    consumer.close()

    assert handed_out is not None
    live = facilities(broker).transport.stats("work").live
    assert (live.waiting, live.running) == (2, 1)


OWNER = "child/live"


@pytest.fixture
def keys() -> Keys:
    return Keys(f"test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def family(valkey: redis.Redis, keys: Keys) -> QueueOperations:
    family = QueueOperations(RedisCalls(valkey), keys.queue("work"))
    family.join(OWNER)
    return family


class Row:
    """A child's row that does something when a flush begins."""

    def __init__(self, begin: Callable[[], object]) -> None:
        self._begin = begin

    def last_end(self) -> int:
        self._begin()
        return 0

    def confirm_flush(self, last_end: int) -> None: ...


@pytest.fixture
def may_write() -> threading.Event:
    return threading.Event()


@pytest.fixture
def steps(valkey: redis.Redis, keys: Keys, may_write: threading.Event) -> Iterator[AckBarrier]:
    """Records that are written in the background, once the test allows it."""
    steps = AckBarrier(JobRecords(RedisCalls(valkey), keys, ["work"]))
    steps.finished = Row(lambda: may_write.wait(60))
    steps.start()
    yield steps
    may_write.set()
    steps.stop()


def hold(family: QueueOperations, count: int) -> list[Lease]:
    family.enqueue([Entry(f"job-{number}", b"{}") for number in range(count)])
    return [grant.lease for grant in family.fetch(OWNER, count, request=1).grants]


def succeed(steps: AckBarrier, lease: Lease) -> None:
    steps.add(ended_step("work", EndedJob(str(lease.id, "ascii"), "succeeded", attempt=1)))


def test_of_many_only_those_are_taken_whose_records_are_written(family, steps, may_write, valkey, keys):
    leases, acks = hold(family, MANY + 4), Acks(family, OWNER, barrier=steps)
    for lease in leases:
        succeed(steps, lease)
        acks.add(lease)

    assert acks.take_written() == []  # and at once, although nothing can be written
    may_write.set()
    wait_for(lambda: not steps.pending, what="records written")

    assert acks.take_written() == leases
    records = JobRecords(RedisCalls(valkey), keys, ["work"])
    assert {found.state for lease in leases if (found := records.read(str(lease.id, "ascii")))} == {"succeeded"}


def test_a_record_that_is_noted_later_holds_back_only_its_own(family, steps, may_write):
    leases, acks = hold(family, 2 * MANY + 1), Acks(family, OWNER, barrier=steps)
    may_write.set()
    for lease in leases[:-1]:
        succeed(steps, lease)
        acks.add(lease)
    wait_for(lambda: not steps.pending, what="records written")
    may_write.clear()
    succeed(steps, leases[-1])
    acks.add(leases[-1])

    assert acks.take_written() == leases[:-1]
    assert acks.pending


def test_records_that_cannot_be_written_keep_the_messages_held(family, steps):
    [lease], acks = hold(family, 1), Acks(family, OWNER, barrier=steps)

    def refuse() -> None:
        raise BrokerUnavailable("job_write", "away")

    steps.finished = Row(refuse)
    succeed(steps, lease)
    acks.add(lease)
    acks.send()

    assert acks.pending
    assert family.held(OWNER) == [lease]
    steps.finished = None
    acks.send()
    assert (family.held(OWNER), acks.pending) == ([], False)


def test_finished_ids_are_remembered_for_ten_to_twenty_minutes(family, valkey):
    first, second = hold(family, 2)
    family.ack(OWNER, [first])
    expires_at = [valkey.pexpiretime(done) for done in family.keys.done if valkey.exists(done)]
    family.ack(OWNER, [second])
    seconds, microseconds = valkey.time()
    left_ms = expires_at[0] - seconds * 1000 - microseconds / 1000

    assert len(expires_at) == 1
    assert 600_000 - 5_000 < left_ms <= 1_200_000
    assert {valkey.pexpiretime(done) for done in family.keys.done if valkey.exists(done)} >= {expires_at[0]}


@pytest.fixture
def records(valkey: redis.Redis) -> JobRecords:
    return JobRecords(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}"), ["work"], finds_waiting=False)


def a_step(state: str, attempts: int) -> Step:
    if state in ENDED:
        return ended_step("work", EndedJob("job", state, attempt=attempts))
    return live_step("work", LiveJob("job", state, attempt=attempts))


def start(buffer: AckBarrier) -> None:
    buffer.begin(SimpleNamespace(message_id="job"), lambda message: a_step("running", 1))


def noted(state: str, attempts: int) -> Callable[[AckBarrier], None]:
    return lambda buffer: buffer.add(a_step(state, attempts))


queue, end = noted("queued", 0), noted("succeeded", 1)


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([queue, start], "running"),
        ([start, queue], "running"),  # the worker was quicker than the sender
        ([start, end, queue], "succeeded"),
        ([queue, start, end], "succeeded"),
    ],
)
def test_the_latest_step_is_written(records, steps, state):
    buffer = AckBarrier(records)
    for act in steps:
        act(buffer)
    buffer.flush()

    record = records.read("job")
    assert record is not None and (record.state, record.attempts) == (state, 1)


def test_an_attempt_that_is_retried_leaves_its_row_beside_the_end(records):
    buffer, failure = AckBarrier(records), Failure("E", "no")
    failed = ended_step("work", EndedJob("job", "retrying", attempt=1, error=failure))
    waits = LiveJob("job", "retrying", attempt=1, next_attempt_at=7, error=failure)
    buffer.add(live_step("work", waits, rows=failed.rows))
    buffer.add(ended_step("work", EndedJob("job", "succeeded", attempt=2)))
    buffer.flush()

    record = records.read("job")

    assert record is not None
    assert (record.state, record.attempts, record.error, record.next_attempt_at) == ("succeeded", 2, None, None)
    [(_, fields)] = records.calls.client.xrange(records.keys.queue("work").history)
    assert [(row.state, row.attempt) for row in decode_rows(fields[b"rows"])] == [("retrying", 1), ("succeeded", 2)]
    assert fields[b"n"] == b"2"


def test_a_start_after_a_failure_keeps_the_failure(records):
    failed = LiveJob("job", "retrying", attempt=1, started_at=1, next_attempt_at=7, error=Failure("E", "no"))
    for job in (failed, LiveJob("job", "running", attempt=2, started_at=1_700_000_000_123)):
        records.write([live_step("work", job)])

    record = records.read("job")

    assert record is not None and (record.state, record.attempts, record.next_attempt_at) == ("running", 2, None)
    assert record.started_at == 1_700_000_000_123
    assert record.error == {"type": "E", "message": "no"}
