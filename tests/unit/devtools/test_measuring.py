"""Measured workloads, the pools that run them, and the choice of the best pool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import dramatiq
import pytest
from django.conf import settings
from dramatiq.brokers.stub import StubBroker

from devtools.attempts import VARIABLE, AttemptLog
from devtools.measuring.apps import MeasuringConfig
from devtools.measuring.run import Figures, choose
from devtools.measuring.work import POOL, Contender, Work, read_contender, read_work, usual_contenders, yard_with
from switchyard.broker.interface import Transport
from switchyard.middleware.dead_letters import DeadLetters
from switchyard.workers.checks import check_yard

URL = "http://127.0.0.1:1/"
SOME = Figures("threads:1x4", tasks_per_s=100, p50_ms=1, p95_ms=2, memory_mb=90, cpu_percent=80, failed=0)


def test_a_pool_is_read_as_it_is_written() -> None:
    for contender in usual_contenders():
        assert read_contender(str(contender)) == contender


@pytest.mark.parametrize("words", ["threads", "threads:4", "fibers:1x4", "threads:0x4", "gevent:1x0", "processes:2x4"])
def test_what_is_no_pool_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"no pool|at least 1"):
        read_contender(words)


@pytest.mark.parametrize("queue", [*(queue.name for queue in settings.SWITCHYARD.topology.queues), "measured"])
def test_a_measured_pool_alone_serves_its_queue_in_a_sound_yard(queue: str) -> None:
    yard = yard_with(settings.SWITCHYARD.topology, queue, Contender("gevent", 1, 64))

    assert [pool.name for pool in yard.pools_of(queue)] == ["measured"]
    assert check_yard(yard) == []


@pytest.mark.parametrize(
    ("others", "picked"),
    [
        pytest.param([replace(SOME, pool="b", tasks_per_s=200)], "b", id="the fastest"),
        pytest.param([replace(SOME, pool="b", tasks_per_s=105, memory_mb=150)], "threads:1x4", id="as fast, in less"),
        pytest.param([replace(SOME, pool="b", tasks_per_s=95, memory_mb=60)], "b", id="a little slower, less memory"),
        pytest.param([replace(SOME, pool="b", tasks_per_s=900, failed=1)], "threads:1x4", id="the fastest fails"),
    ],
)
def test_the_smallest_of_the_fast_ones_is_picked(others: list[Figures], picked: str) -> None:
    found = choose([SOME, *others])

    assert found is not None
    assert found.pool == picked


def test_none_is_picked_when_tasks_fail_in_all() -> None:
    assert choose([replace(SOME, failed=1), replace(SOME, pool="b", tasks_per_s=900, failed=20)]) is None


def test_an_actor_of_the_project_is_sent_to_its_own_queue() -> None:
    actor = sorted(dramatiq.get_broker().actors)[0]
    queue = dramatiq.get_broker().get_actor(actor).queue_name

    with pytest.raises(ValueError, match="does not take these arguments"):
        read_work(actor, '{"no_such_argument": 1}', url=URL)
    assert read_work("http", "", url=URL) == Work("sample_http", "measured", [URL])
    assert queue in {known.name for known in settings.SWITCHYARD.topology.queues}


@pytest.mark.parametrize(("arguments", "said"), [("[1", "are no JSON"), ("7", "neither a list nor an object")])
def test_arguments_that_cannot_be_read_are_refused_with_an_example(arguments: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_work(sorted(dramatiq.get_broker().actors)[0], arguments, url=URL)


def test_an_unknown_actor_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match="samples are cpu, http, database"):
        read_work("no_such_actor", "", url=URL)


def test_what_fails_in_a_measurement_is_nobodys_dead_letter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    letters = DeadLetters(yard=settings.SWITCHYARD.topology, transport=cast(Transport, None), on_dead=(print,))
    broker = StubBroker(middleware=[letters])
    monkeypatch.setattr("dramatiq.get_broker", lambda: broker)
    monkeypatch.setenv("SWITCHYARD_MEASURED_QUEUE", "urgent")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "times"))

    MeasuringConfig.ready(cast(MeasuringConfig, None))

    assert letters.on_dead == ()
    assert any(isinstance(entry, AttemptLog) for entry in broker.middleware)


def test_yard_to_measure_keeps_the_dependencies_that_actors_name() -> None:
    own = settings.SWITCHYARD.topology
    yard = yard_with(own, "webhook", Contender("gevent", 1, 4))

    assert yard.dependencies == own.dependencies != ()
    assert [pool.name for pool in yard.pools_of("webhook")] == [POOL]
