"""The buffer of job records under faults of its writes: no step is lost, and no thread blocks for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from dramatiq.middleware import TimeLimitExceeded

from broker.errors import BrokerRefused, BrokerUnavailable
from broker.stores.ended_jobs import EndedJob
from broker.stores.job_records import JobRecords
from broker.stores.job_steps import Step, ended_step
from broker.worker.ack_barrier import AckBarrier
from tests.waiting import wait_for


class Records:
    """Keeps what is written, and does something else as often as it is told to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.instead: list[Callable[[], None]] = []

    def write(self, steps: Sequence[Step]) -> None:
        """Write."""
        if self.instead:
            self.instead.pop(0)()
        self.written += [step.job_id for step in steps]


class Lock:
    """A lock after whose release something is raised once, as a time limit may be at any line of a task."""

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None:
        if not self.raised:
            self.raised = True
            raise TimeLimitExceeded


def make(records: Records) -> AckBarrier:
    return AckBarrier(cast(JobRecords, records))


def end(job_id: str) -> Step:
    return ended_step("work", EndedJob(job_id, "succeeded", attempt=1))


def test_an_interrupt_between_taking_steps_and_writing_them_loses_none() -> None:
    records = Records()
    steps = make(records)
    steps.add(end("a"))
    steps._lock = Lock()  # type: ignore[assignment]

    with pytest.raises(TimeLimitExceeded):
        steps.flush()
    steps.flush()

    assert records.written == ["a"]


def test_what_another_thread_could_not_write_does_not_count_as_written() -> None:
    records = Records()
    steps = make(records)
    steps.add(end("a"))

    class FailsMeanwhile(dict[str, Step]):
        """Looks empty, because another thread has taken what was there; then that one fails, and puts it back."""

        def __bool__(self) -> bool:
            return steps._writing.locked() and len(self) > 0

    steps._steps = FailsMeanwhile(steps._steps)
    steps.flush()

    assert records.written == ["a"]
    assert steps.written == steps.noted


def test_the_background_goes_on_after_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise BrokerRefused("job_write", "NOPERM this user has no permissions to run the 'evalsha' command")

    records = Records()
    records.instead = [refuse]
    steps = make(records)
    steps.start()
    try:
        with caplog.at_level(logging.CRITICAL):
            steps.add(end("a"))
            wait_for(lambda: steps.written == steps.noted, 5, what="the record written")
    finally:
        steps.stop()

    assert records.written == ["a"]
    assert "cannot be written now" in caplog.text


def test_a_start_that_cannot_be_told_holds_up_no_other() -> None:
    def fail() -> Step:
        raise ValueError("generation is no number")

    records = Records()
    steps = make(records)
    steps.begin("bad", fail)
    steps.add(end("good"))
    steps.flush()

    assert records.written == ["good"]
    assert steps.written == steps.noted


def test_a_write_ends_although_others_note_without_a_pause() -> None:
    records = Records()
    steps = make(records)

    def note_more() -> None:
        assert len(records.written) < 5
        steps.add(end(f"{len(records.written)}"))

    records.instead = [note_more] * 10
    steps.add(end("a"))
    steps.flush()

    assert records.written == ["a"]
    assert steps.written == steps.noted - 1


class Participant:
    """Metrics and child's row at once, which note when they are called."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def fold(self) -> None:
        """Note a call."""
        self.calls.append("metrics")

    def last_end(self) -> int:
        """Note a call."""
        self.calls.append("last end")
        return 7

    def confirm_flush(self, last_end: int) -> None:
        """Note a call."""
        self.calls.append(f"confirmed {last_end}")


def test_a_flush_writes_metrics_then_records_and_confirms_what_had_ended_before() -> None:
    records = Records()
    steps = make(records)
    calls: list[str] = []
    steps.metrics = steps.finished = Participant(calls)
    records.instead = [lambda: calls.append("records")]
    steps.add(end("a"))

    steps.flush()

    assert calls == ["last end", "metrics", "records", "confirmed 7"]


def test_a_flush_that_fails_confirms_nothing() -> None:
    def away() -> None:
        raise BrokerUnavailable("job_write", "away")

    records = Records()
    steps = make(records)
    calls: list[str] = []
    steps.metrics = steps.finished = Participant(calls)
    records.instead = [away]
    steps.add(end("a"))

    with pytest.raises(BrokerUnavailable):
        steps.flush()

    assert calls == ["last end", "metrics"]
    assert steps.written < steps.noted
