"""The flush on a cluster: a node that is away holds back its own queues only, and nothing is lost."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from msgspec import structs

from switchyard.addons.cluster.calls import QueueBarrier
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.queue.operations import Lease
from switchyard.broker.stores.history_streams import Step
from switchyard.broker.topology import Queue, Yard
from switchyard.broker.worker.acks import MANY, Acks
from switchyard.middleware.callbacks import DurableGroupCallbacks
from tests.unit.broker.worker.test_ack_barrier import OWNER, Records, end, interrupt_at_each_line
from tests.waiting import wait_for


def test_an_interrupt_at_any_line_of_a_flush_loses_no_step():
    interrupt_at_each_line(QueueBarrier, QueueBarrier._gather, QueueBarrier._drop)


class SpreadRecords(Records):
    """Records of a cluster; the nodes of some queues are away."""

    def __init__(self) -> None:
        super().__init__()
        self.away: set[str] = set()

    def write(self, steps: Sequence[Step]) -> None:
        if {step.queue for step in steps} & self.away:
            raise BrokerUnavailable("job_write", "away")
        super().write(steps)

    def hang_once(self) -> tuple[threading.Event, threading.Event]:
        """Have the next write wait; return what is set when it has begun, and what is to be set to end it."""
        writes, answers = threading.Event(), threading.Event()

        def hang() -> None:
            writes.set()
            assert answers.wait(30)

        self.instead = [hang]
        return writes, answers


def test_a_node_that_is_away_holds_back_its_own_queues_only():
    steps = QueueBarrier(records := SpreadRecords())
    records.away = {"gone"}
    for job_id, queue in (("a", "gone"), ("b", "work")):
        steps.add(end(job_id, queue))

    steps.flush(queue="work")
    steps.add(end("c", "work"))
    steps.flush(queue="work")
    with pytest.raises(BrokerUnavailable):
        steps.flush(queue="gone")

    assert records.written == ["b", "c"]
    assert (steps.written_of("gone"), steps.written_of("work")) == (0, 2)
    assert steps.pending


def test_a_node_that_is_back_gets_what_waited_for_it():
    steps = QueueBarrier(records := SpreadRecords())
    finished = mock.Mock(last_end=mock.Mock(return_value=7))
    steps.finished = finished
    records.away = {"gone"}
    steps.add(end("a", "gone"))
    steps.flush(queue="work")

    finished.confirm_flush.assert_not_called()
    records.away = set()
    steps.flush()

    assert records.written == ["a"]
    assert steps.written_of("gone") == 2
    assert not steps.pending
    finished.confirm_flush.assert_called_once_with(7)


def test_no_queue_waits_for_the_write_of_another():
    steps = QueueBarrier(records := SpreadRecords())
    writes, answers = records.hang_once()
    steps.add(end("a", "hangs"))
    with ThreadPoolExecutor() as threads:
        try:
            first = threads.submit(steps.flush, queue="hangs")
            assert writes.wait(30)
            steps.add(end("b", "work"))
            threads.submit(steps.flush, queue="work").result(10)
            assert (records.written, steps.written_of("work")) == (["b"], 2)
            whole = threads.submit(steps.flush)  # waits, and has written what it can
            steps.add(end("c", "work"))
            wait_for(lambda: steps.begun == 3)
        finally:
            answers.set()
        first.result(30)
        whole.result(30)
        steps.flush()

    assert sorted(records.written) == ["a", "b", "c"]
    assert steps.written_of("hangs") == steps.written_of("work") == 4


def test_a_step_that_comes_while_the_one_before_is_written_is_written_as_well():
    steps = QueueBarrier(records := SpreadRecords())
    writes, answers = records.hang_once()
    steps.add(structs.replace(end("a"), state="retrying", sequence=1))
    with ThreadPoolExecutor() as threads:
        try:
            first = threads.submit(steps.flush, queue="work")
            assert writes.wait(30)
            steps.add(structs.replace(end("a"), sequence=2))
            steps.flush(queue="another")  # gathers it
        finally:
            answers.set()
        first.result(30)
    assert steps.pending
    steps.flush(queue="work")

    assert records.written == ["a", "a"]
    assert not steps.pending


def test_an_attempt_to_write_that_fails_does_not_make_one_before_it_count_as_written():
    steps = QueueBarrier(records := SpreadRecords())
    steps.flush()
    steps.add(end("a", "gone"))
    needs = steps.begun + 1
    records.away = {"gone"}
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            steps.flush()

    assert steps.written_of("gone") < needs <= steps.written_of("work")


def test_many_acknowledgements_do_not_wait_for_the_node_of_another_queue():
    """The background waits for seconds for a node that is away."""
    records = SpreadRecords()
    records.away = {"gone"}
    barrier = QueueBarrier(records)
    acks = Acks(SimpleNamespace(keys=SimpleNamespace(queue="work")), OWNER, barrier=barrier)
    barrier.add(end("of another node", "gone"))
    with pytest.raises(BrokerUnavailable):
        barrier.flush()
    barrier.start()
    try:
        for number in range(MANY):
            barrier.add(end(f"job-{number}"))
            acks.add(Lease(OWNER, f"job-{number}".encode(), b"1"))
        taken = acks.take_written()
    finally:
        records.away = set()
        barrier.stop()

    assert len(taken) == MANY


QUEUES = tuple(Queue(name, objective_ms=None, soft_limit_ms=5_000, hard_limit_ms=9_000) for name in ("work", "gone"))


@pytest.mark.parametrize("lane", ["work", "work-retry"])
def test_a_job_is_counted_while_the_node_of_another_queue_is_away(lane):
    records = SpreadRecords()
    records.away = {"gone"}
    barrier = QueueBarrier(records)
    counted: list[Any] = []

    def count(group: str, job_id: str, *, ttl_ms: int) -> str:
        counted.append((group, job_id, list(records.written)))
        return "open"

    callbacks = DurableGroupCallbacks(
        groups=mock.Mock(count=count), barrier=barrier, yard=Yard(QUEUES, ()), transport=mock.Mock()
    )
    options = {"group_completion_uuid": "group", "group_completion_callbacks": [{}]}
    message = dramatiq.Message(lane, "add", (), {}, options, message_id="a")
    barrier.add(end("b", "gone"))
    barrier.add(end("a", "work"))

    callbacks.after_process_message(StubBroker(middleware=[]), dramatiq.MessageProxy(message))

    assert counted == [("group", "a", ["a"])]
