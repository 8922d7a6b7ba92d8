"""Records at the end of a worker."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.history_streams import EndedJob
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.job_steps import Step, ended_step
from switchyard.broker.topology import Yard
from switchyard.broker.worker.acks import AckBarrier
from switchyard.middleware.status import Status


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
