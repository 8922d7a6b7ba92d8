"""Texts, numbers and records of an attempt, whatever its actor has left in them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.history_streams import EndedJob, Step, ended_step
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.result_stores import ResultStores
from switchyard.broker.topology import Yard
from switchyard.broker.worker.acks import AckBarrier
from switchyard.middleware.outcomes import attempt, fingerprint, text_of, traceback_of
from switchyard.middleware.status import Status, result_of


def test_the_text_of_an_exception_is_made_once() -> None:
    class Slow(Exception):
        made = 0

        def __str__(self) -> str:
            Slow.made += 1
            return "slow"

    error = Slow()

    assert (text_of(error), text_of(error), Slow.made) == ("slow", "slow", 1)


def test_an_exception_that_cannot_be_formatted_is_shown_with_its_frames() -> None:
    try:
        raise SyntaxError("bad", ("f.py", 1, "two", "text"))
    except SyntaxError as error:
        text = traceback_of(error)

    assert text.endswith("SyntaxError: bad (f.py, line 1)\n") and "test_outcomes.py" in text


@pytest.mark.parametrize(("value", "expected"), [(2, 3), ("many", 1), (None, 1), (-5, 1), (True, 1)])
def test_a_count_that_a_task_has_overwritten_is_none(value: Any, expected: int) -> None:
    assert attempt(Message("work", "a", (), {}, {"attempts": value})) == expected


@pytest.mark.parametrize(("value", "text"), [(None, "null"), ("", '""'), (0, "0"), ({"a": (1,)}, '{"a": [1]}')])
def test_a_result_is_kept_as_json_and_none_is_one(value: Any, text: str) -> None:
    assert result_of(SimpleNamespace(message_id="j"), value, ResultStores()) == (text, "", None)


def _fail(number: int) -> None:
    raise ValueError(f"order {number}")


def _fail_elsewhere() -> None:
    raise ValueError("order 1")


def _caught(function: object, *args: object) -> BaseException:
    try:
        function(*args)  # type: ignore[operator]
    except ValueError as error:
        return error
    raise AssertionError("did not fail")


def test_numbers_in_the_message_do_not_matter() -> None:
    assert fingerprint("a", _caught(_fail, 1)) == fingerprint("a", _caught(_fail, 2))


def test_actor_exception_and_place_matter() -> None:
    base = fingerprint("a", _caught(_fail, 1))

    assert base != fingerprint("b", _caught(_fail, 1))
    assert base != fingerprint("a", _caught(_fail_elsewhere))
    assert base != fingerprint("a", KeyError("order"))
    assert len(base) == 16


class NoAnswer:
    """Records on a server that is away."""

    addon = None

    def write(self, steps: Sequence[Step]) -> None:
        raise BrokerUnavailable("job_write", "timed out")


def test_a_worker_that_ends_without_its_server_says_so_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    barrier = AckBarrier(cast(JobRecords, NoAnswer()))
    barrier.add(ended_step("default", EndedJob("a", "succeeded")))
    status = Status(yard=cast(Yard, None), barrier=barrier)

    with caplog.at_level(logging.WARNING):
        StubBroker(middleware=[status]).emit_after("worker_shutdown", cast(Any, None))

    [line] = caplog.records
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert line.getMessage().startswith(
        "job records are not written at the end of the worker, jobs that ended may run again: "
    )
    assert barrier.pending, "the last flush of the child tries once more"


def test_an_actor_that_is_declared_again_brings_its_options() -> None:
    broker, kept = StubBroker(middleware=[]), []
    status = Status(yard=cast(Yard, None), barrier=AckBarrier(cast(JobRecords, NoAnswer())))
    broker.add_middleware(status)
    for store in (False, True, False):
        dramatiq.actor(broker=broker, actor_name="again", store_results=store)(_nothing)
        kept.append((status._kept["again"].store_results, status._kept["again"].is_plain))
        del broker.actors["again"]

    assert kept == [(False, True), (True, False), (False, True)]


def _nothing() -> None:
    """Do nothing."""
