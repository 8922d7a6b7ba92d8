"""The buffer of job records under faults of its writes: no step is lost, and no thread blocks for ever."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
from dramatiq.middleware import TimeLimitExceeded

from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.broker.queue.operations import Lease, QueueOperations
from switchyard.broker.stores.history_streams import EndedJob, Step, ended_step
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.worker.acks import AckBarrier, Acks
from tests.waiting import wait_for


class Records:
    """Keeps what is written, and does something else as often as it is told to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.instead: list[Callable[[], None]] = []

    def write(self, steps: Sequence[Step]) -> None:
        if self.instead:
            self.instead.pop(0)()
        self.written += [step.job_id for step in steps]


class InterruptAt:
    """Trace function that raises at one line between two places of a step, as the time limit of a sending task may."""

    def __init__(self, line: int, *moves: Callable[..., Any]) -> None:
        self.left = line
        self._moves = {move.__code__ for move in moves}

    def __call__(self, frame: FrameType, event: str, arg: object) -> InterruptAt:
        if event == "line" and frame.f_code in self._moves:
            self.left -= 1
            if self.left == 0:
                raise TimeLimitExceeded
        return self


def make(records: Records) -> AckBarrier:
    return AckBarrier(cast(JobRecords, records))


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def steps(records: Records) -> AckBarrier:
    return make(records)


def away() -> None:
    raise BrokerUnavailable("job_write", "away")


def end(job_id: str, queue: str = "work") -> Step:
    return ended_step(queue, EndedJob(job_id, "succeeded", attempt=1))


def test_an_interrupt_at_any_line_of_a_flush_loses_no_step():
    interrupt_at_each_line(make, AckBarrier._gather, AckBarrier._write_some)


def interrupt_at_each_line(make: Callable[[Records], AckBarrier], *moves: Callable[..., Any]) -> None:
    """Interrupt a flush at each line of the functions that move steps, and write what is left afterwards."""
    interrupted, line = True, 0
    while interrupted:
        line += 1
        records, tracing = Records(), sys.gettrace()
        steps = make(records)
        steps.add(end("a"))
        steps.add(end("b"))
        sys.settrace(InterruptAt(line, *moves))
        try:
            steps.flush()
            interrupted = False
        except TimeLimitExceeded:
            pass
        finally:
            sys.settrace(tracing)
        steps.flush()

        assert set(records.written) == {"a", "b"}
        assert not steps.pending
    assert line > 15


def test_what_another_thread_could_not_write_does_not_count_as_written(records, steps):
    writes, fails = threading.Event(), threading.Event()

    def fail() -> None:
        writes.set()
        assert fails.wait(30)
        away()

    def flush() -> None:
        with pytest.raises(BrokerUnavailable):
            steps.flush()

    records.instead = [fail]
    steps.add(end("a"))
    with ThreadPoolExecutor() as threads:
        first = threads.submit(flush)
        assert writes.wait(30)
        second = threads.submit(steps.flush)
        wait_for(lambda: steps.begun == 2, what="the second flush")
        fails.set()
        first.result(30)
        second.result(30)

    assert (records.written, steps.written) == (["a"], 2)


def test_the_background_goes_on_after_a_refusal(records, steps, caplog):
    def refuse() -> None:
        raise BrokerRefused("job_write", "NOPERM this user has no permissions to run the 'evalsha' command")

    records.instead = [refuse]
    steps.start()
    try:
        with caplog.at_level(logging.CRITICAL):
            steps.add(end("a"))
            wait_for(lambda: not steps.pending, what="the record written")
    finally:
        steps.stop()

    assert records.written == ["a"]
    assert "cannot be written now" in caplog.text


def test_a_start_that_cannot_be_told_holds_up_no_other(records, steps):
    def fail(message: Any) -> Step:
        raise ValueError("generation is not a number")

    steps.begin(SimpleNamespace(message_id="bad"), fail)
    steps.add(end("good"))
    steps.flush()

    assert records.written == ["good"]
    assert not steps.pending


def test_a_write_ends_although_others_note_without_a_pause(records, steps):

    def note_more() -> None:
        assert len(records.written) < 5
        steps.add(end(f"{len(records.written)}"))

    records.instead = [note_more] * 10
    steps.add(end("a"))
    steps.flush()

    assert records.written == ["a"]
    assert steps.pending


class Participant:
    """Metrics and child's row at once, which note when they are called."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def fold(self) -> None:
        self.calls.append("metrics")

    def last_end(self) -> int:
        self.calls.append("last end")
        return 7

    def confirm_flush(self, last_end: int) -> None:
        self.calls.append(f"confirmed {last_end}")


def test_a_flush_writes_metrics_then_records_and_confirms_what_had_ended_before(records, steps):
    calls: list[str] = []
    steps.metrics = steps.finished = Participant(calls)
    records.instead = [lambda: calls.append("records")]
    steps.add(end("a"))

    steps.flush()

    assert calls == ["last end", "metrics", "records", "confirmed 7"]


def test_a_flush_that_fails_confirms_nothing(records, steps):
    calls: list[str] = []
    steps.metrics = steps.finished = Participant(calls)
    records.instead = [away]
    steps.add(end("a"))

    with pytest.raises(BrokerUnavailable):
        steps.flush()

    assert calls == ["last end", "metrics"]
    assert steps.written < steps.begun


OWNER = "child/live"


class Held:
    def held(self, owner: str) -> list[Lease]:
        return []

    def release(self, owner: str, leases: list[Lease]) -> None: ...


def test_a_thread_may_acknowledge_while_unknown_ones_are_looked_for():
    acks = Acks(cast(QueueOperations, Held()), OWNER, barrier=None)

    class Slow(Lease):
        """While it is looked at, another thread acknowledges something."""

        def __hash__(self) -> int:
            acks.add(Lease(OWNER, b"later", b"2"))
            return 1

    acks.add(Slow(OWNER, b"first", b"1"))
    acks.add(Slow(OWNER, b"second", b"1"))

    acks.release_unknown([])

    assert acks.pending
