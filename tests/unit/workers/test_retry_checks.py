"""Retries that are over before an outage is are named: those of a queue, and those of an actor on it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from pytest_django import Settings

from switchyard.broker.topology import Queue, RetryPolicy, Yard
from switchyard.conf import declared_yard
from switchyard.middleware.retries import Retries
from switchyard.workers.checks import check_actors, check_yard, yard_is_sound

SHORT = RetryPolicy(max_retries=5, base_ms=1_000)


def yard(**options: Any) -> Yard:
    queue = Queue("mail", objective_ms=1_000, soft_limit_ms=1_000, hard_limit_ms=2_000, **options)
    return replace(declared_yard(), queues=(*declared_yard().queues, queue))


def of_retries(messages: list[Any]) -> list[tuple[Any, str]]:
    return [(message.obj, message.msg) for message in messages if message.id == "switchyard.W007"]


def actor_warnings(declared: Yard, **options: Any) -> list[tuple[Any, str]]:
    broker = StubBroker(middleware=[Retries(yard=declared, transport=None)])  # type: ignore[arg-type]
    dramatiq.actor(lambda: None, actor_name="send", queue_name="mail", broker=broker, **options)
    warnings = of_retries(check_actors(declared, broker))
    place = r" \(tests/unit/workers/test_retry_checks\.py:\d+\)"
    assert all(re.search(place, subject) for subject, _ in warnings)
    return [(re.sub(place, "", subject), fact) for subject, fact in warnings]


def test_a_queue_whose_retries_end_within_a_minute_is_named_with_what_it_calls() -> None:
    [(subject, fact)] = of_retries(check_yard(yard(retry=SHORT, calls="mail server")))

    assert subject == "queue mail"
    assert fact.startswith("5 retries over 15 s to 31 s; an outage of what it calls (mail server)")


@pytest.mark.parametrize(
    "options",
    [
        {"retry": SHORT},
        {"calls": "mail server"},
        {"calls": "mail server", "retry": RetryPolicy(max_retries=0)},
        {"calls": "mail server", "retry": RetryPolicy(delays_ms=(1_800_000,))},
    ],
    ids=["calls nobody", "the default", "no retries on purpose", "one retry, late enough"],
)
def test_other_queues_are_not(options: dict[str, Any]) -> None:
    assert of_retries(check_yard(yard(**options))) == []


@pytest.mark.parametrize(
    "options",
    [{"max_retries": 3}, {"backoff": lambda retry: 1_000}, {"max_backoff": 10_000}],
    ids=["fewer", "sooner", "never late"],
)
def test_an_actor_that_shortens_them_is_named(options: dict[str, Any]) -> None:
    [(subject, fact)] = actor_warnings(yard(calls="mail server"), **options)

    assert subject == "actor send"
    assert "mail server" in fact


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_retries": 0},
        {"max_retries": 9},
        {"backoff": lambda retry: 600_000},
        {"max_retries": None, "max_backoff": 10_000},
        {"min_backoff": 600_000, "max_retries": 2},
        {"max_retries": 3, "retry_when": lambda retries, exception: True},
    ],
)
def test_an_actor_that_does_not_is_not(options: dict[str, Any]) -> None:
    assert actor_warnings(yard(calls="mail server"), **options) == []
    assert actor_warnings(yard(), max_retries=3) == []


def test_hurried_retries_are_refused_in_production_alone(settings: Settings) -> None:
    hurried = replace(settings.SWITCHYARD, topology=declared_yard().hurried(1_500))

    settings.SWITCHYARD = replace(hurried, debug=False)
    refused = yard_is_sound()
    settings.SWITCHYARD = replace(hurried, debug=True)

    assert [(message.id, message.obj) for message in refused] == [("switchyard.E034", "yard")]
    assert yard_is_sound() == []
