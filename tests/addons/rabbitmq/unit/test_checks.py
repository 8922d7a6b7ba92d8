"""The check of hard limits against RabbitMQ's consumer timeout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from dramatiq.brokers.stub import StubBroker

from switchyard.addons.rabbitmq.settings import limits_over_the_consumer_timeout
from switchyard.batches.services import Batch, batch, current_batch
from switchyard.broker.interface import facilities
from switchyard.broker.topology import Dependency
from switchyard.conf import SwitchyardSettings, switchyard_settings
from switchyard.wiring import in_order
from switchyard.workers.checks import TAG
from tests.addons.rabbitmq.yards import settings_of
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard


def with_timeout(own: SwitchyardSettings, timeout_s: int) -> SwitchyardSettings:
    return replace(own, **settings_of("amqp://127.0.0.1/", consumer_timeout_s=timeout_s))


@pytest.fixture
def no_actors() -> Iterator[None]:
    """Have no actor declared: those of the products have options that RabbitMQ lacks."""
    with the_global_broker(StubBroker(middleware=[])):
        yield


@pytest.mark.usefixtures("no_actors")
def test_a_hard_limit_over_half_of_the_consumer_timeout_is_refused() -> None:
    yard = small_yard(soft_limit_ms=30_000)  # its hard limit is twice that
    own = replace(switchyard_settings(), topology=yard)

    [found] = limits_over_the_consumer_timeout(with_timeout(own, 119))

    assert (found.id, found.obj) == ("switchyard.E026", "queue work")
    assert "60 s is over 59.5 s" in found.msg
    assert limits_over_the_consumer_timeout(with_timeout(own, 120)) == []


@pytest.mark.usefixtures("no_actors")
def test_a_dependency_has_no_circuit_there() -> None:
    own = replace(switchyard_settings(), topology=replace(small_yard(), dependencies=(Dependency("payments"),)))

    [found] = limits_over_the_consumer_timeout(with_timeout(own, 120))

    assert (found.id, found.obj) == ("switchyard.W027", "dependency payments")


def test_limits_on_what_runs_at_once_have_no_effect_there() -> None:
    broker, yard = StubBroker(middleware=in_order(facilities())), small_yard()
    dramatiq.actor(lambda key: None, actor_name="limited", broker=broker, concurrency=1, ordered_by="key")
    own = replace(switchyard_settings(), topology=replace(yard, queues=(replace(yard.queues[0], fair_by="key"),)))

    with the_global_broker(broker):
        found = limits_over_the_consumer_timeout(with_timeout(own, 120))

    assert {one.id for one in found} == {"switchyard.W027"}
    assert [one.obj for one in found] == ["actor limited", "actor limited", "queue work"]


def import_all() -> None:
    with batch("import"):
        pass


async def import_more(batch_id: str) -> None:
    Batch(batch_id).add()


def import_one() -> None:
    current_batch()


def test_a_batch_cannot_be_made_there() -> None:
    broker = StubBroker(middleware=in_order(facilities()))
    functions: list[Any] = [import_all, import_more, import_one]
    for function in functions:
        dramatiq.actor(broker=broker)(function)
    own = replace(switchyard_settings(), topology=small_yard())

    with the_global_broker(broker):
        found = limits_over_the_consumer_timeout(with_timeout(own, 120))

    assert [(one.id, one.obj) for one in found] == [
        ("switchyard.W027", "actor import_all"),
        ("switchyard.W027", "actor import_more"),
    ]


def test_manage_py_check_refuses_such_a_yard(monkeypatch: pytest.MonkeyPatch) -> None:
    own = with_timeout(switchyard_settings(), 10)
    monkeypatch.setattr("switchyard.workers.checks.switchyard_settings", lambda: own)

    with pytest.raises(SystemCheckError, match=r"\(switchyard\.E026\) its hard limit of .* is over 5 s"):
        call_command("check", "--tag", TAG)
