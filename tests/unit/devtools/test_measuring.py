"""The work and the yard of a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import dramatiq
import pytest
from django.conf import settings
from dramatiq.brokers.stub import StubBroker

from devtools.measuring.apps import VARIABLE, AttemptLog, MeasuringConfig
from devtools.measuring.work import POOL, read_work, yard_with
from switchyard.broker.interface import Transport
from switchyard.broker.topology import Pool
from switchyard.middleware.dead_letters import DeadLetters
from switchyard.workers.checks import check_yard


@pytest.mark.parametrize("queue", [queue.name for queue in settings.SWITCHYARD.topology.queues])
def test_a_measured_pool_alone_serves_its_queue_in_a_sound_yard(queue: str) -> None:
    own = settings.SWITCHYARD.topology
    yard = yard_with(own, Pool(POOL, "gevent", (queue,), processes=1, slots=64))

    assert [pool.name for pool in yard.pools_of(queue)] == [POOL]
    assert check_yard(yard) == []
    assert yard.dependencies == own.dependencies != ()


@pytest.mark.parametrize("arguments", ["[1", "7", '{"no_such_argument": 1}'])
def test_arguments_that_cannot_be_read_are_refused_with_an_example(arguments: str) -> None:
    with pytest.raises(ValueError, match=r"does not take the arguments .*for example '\[1, 2\]'"):
        read_work(sorted(dramatiq.get_broker().actors)[0], arguments)


def test_an_unknown_actor_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match="no actor 'no_such_actor'; the project has "):
        read_work("no_such_actor", "")


def test_what_fails_in_a_measurement_is_nobodys_dead_letter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    letters = DeadLetters(yard=settings.SWITCHYARD.topology, transport=cast(Transport, None), on_dead=(print,))
    broker = StubBroker(middleware=[letters])
    monkeypatch.setattr("dramatiq.get_broker", lambda: broker)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "times"))

    MeasuringConfig.ready(cast(MeasuringConfig, None))

    assert letters.on_dead == ()
    assert any(isinstance(entry, AttemptLog) for entry in broker.middleware)
