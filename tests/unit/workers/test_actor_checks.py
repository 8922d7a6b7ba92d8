"""Mistakes in actors: an undeclared queue, a dead list, no time limit."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import User
from django.db import transaction
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Callbacks, Middleware, Retries

from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.middleware.async_actors import AsyncActors
from switchyard.middleware.interrupts import ThreadInterrupts
from switchyard.middleware.time_limits import TimeLimits
from switchyard.workers.checks import check_actors

YARD = Yard(
    queues=(Queue("work", objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000),),
    pools=(
        Pool("work", "threads", ("work",), processes=1, slots=1),
        Pool("retries", "threads", (), processes=1, slots=1, shared_retries=True),
    ),
)


class Limits(Middleware):
    """Knows the option."""

    @property
    def actor_options(self) -> set[str]:
        return {"time_limit"}


def broker_with(middleware: tuple[Middleware, ...] = (Limits(),), **options: Any) -> StubBroker:
    broker = StubBroker(middleware=list(middleware))
    dramatiq.actor(lambda: None, actor_name="one", broker=broker, **options)
    return broker


def told(broker: StubBroker) -> list[tuple[str | None, Any]]:
    return [(message.id, str(message.obj).partition(" (")[0]) for message in check_actors(YARD, broker)]


def test_an_actor_that_inherits_its_queues_limit_is_sound() -> None:
    assert told(broker_with(queue_name="work")) == []


def test_an_actor_on_an_undeclared_queue_is_refused_with_those_that_exist() -> None:
    messages = check_actors(YARD, broker_with(queue_name="wrok"))

    assert messages[0].id == "switchyard.E001"
    assert re.fullmatch(r"actor one \(tests/unit/workers/test_actor_checks\.py:\d+\)", messages[0].obj)
    assert "Use one of work" in str(messages[0].hint)


@pytest.mark.parametrize("limit", [None, float("inf"), 0, -1, "5s"])
def test_an_actor_without_a_time_limit_is_refused(limit: object) -> None:
    assert told(broker_with(queue_name="work", time_limit=limit)) == [("switchyard.E002", "actor one")]


@pytest.mark.parametrize(("limit", "ids"), [(1_999, []), (2_000, ["switchyard.E003"]), (9_000, ["switchyard.E003"])])
def test_an_actors_limit_stays_below_its_queues_hard_limit(limit: int, ids: list[str]) -> None:
    assert [id for id, _ in told(broker_with(queue_name="work", time_limit=limit))] == ids


def test_a_callback_that_no_actor_has_is_refused_with_its_place() -> None:
    broker = broker_with(queue_name="work")
    broker.add_middleware(Callbacks())
    dramatiq.actor(lambda: None, actor_name="two", queue_name="work", broker=broker, on_failure="on", on_success="one")

    broker.add_middleware(Retries())
    dramatiq.actor(lambda: None, actor_name="three", queue_name="work", broker=broker, on_retry_exhausted="four")

    [message, other] = check_actors(YARD, broker)

    assert (message.id, message.msg) == ("switchyard.E022", "on_failure is 'on': no actor is called so")
    assert (other.id, other.msg) == ("switchyard.E022", "on_retry_exhausted is 'four': no actor is called so")
    assert message.hint == "Did you mean 'one'?"
    assert re.fullmatch(r"actor two \(tests/unit/workers/test_actor_checks\.py:\d+\)", message.obj)


def test_an_actor_on_a_dead_list_is_refused() -> None:
    assert told(broker_with(queue_name="work-dead")) == [("switchyard.E011", "actor one")]


def test_a_dead_list_declared_as_a_queue_is_refused() -> None:
    broker = broker_with(queue_name="work")
    broker.declare_queue("work-dead")

    assert told(broker) == [("switchyard.E011", "queue work-dead")]


@pytest.mark.parametrize(("limit", "hint"), [(30, "time_limit=30_000"), (0.5, "time_limit=500"), (999, "=999_000")])
def test_a_time_limit_that_was_meant_in_seconds_is_seen(limit: float, hint: str) -> None:
    [message] = check_actors(YARD, broker_with(queue_name="work", time_limit=limit))

    assert (message.id, message.is_serious()) == ("switchyard.W020", False)
    assert hint in str(message.hint)


def test_a_method_is_no_actor() -> None:
    broker = broker_with(queue_name="work")

    class Report:
        @dramatiq.actor(broker=broker, queue_name="work")
        def render(self, month: str) -> None: ...

    [message] = check_actors(YARD, broker)

    assert (message.id, message.is_serious()) == ("switchyard.W022", False)
    assert message.obj.startswith("actor render (tests/unit/workers/test_actor_checks.py:")
    assert "its first parameter is 'self'" in message.msg


def test_an_actor_below_another_decorator_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = broker_with(queue_name="work")

    @dramatiq.actor(broker=broker, queue_name="work")
    def book(order: int) -> None: ...

    @dramatiq.actor(broker=broker, queue_name="work")
    @transaction.atomic
    def ship(order: int) -> None: ...

    here = sys.modules[__name__]
    monkeypatch.setattr(here, "book", transaction.atomic(book), raising=False)
    monkeypatch.setattr(here, "ship", ship, raising=False)

    [message] = check_actors(YARD, broker)

    assert (message.id, message.is_serious()) == ("switchyard.W022", False)
    assert message.obj.startswith("actor book (tests/unit/workers/test_actor_checks.py:")
    assert "book.send(...) fails" in message.msg
    assert message.hint == "Put @dramatiq.actor(...) above the other decorators."


def test_a_generator_is_no_actor() -> None:
    broker = broker_with(queue_name="work")

    @dramatiq.actor(broker=broker, queue_name="work")
    def pages(month: str) -> Iterator[str]:
        yield month

    @dramatiq.actor(broker=broker, queue_name="work")
    async def rows(month: str) -> AsyncIterator[str]:
        yield month

    first, second = check_actors(YARD, broker)

    assert {first.id, second.id} == {"switchyard.W022"}
    assert first.obj.startswith("actor pages (tests/unit/workers/test_actor_checks.py:")
    assert second.obj.startswith("actor rows (")
    assert "none of its code runs" in first.msg


def test_an_annotation_that_counts_as_none_is_seen() -> None:
    broker = broker_with(queue_name="work")

    @dramatiq.actor(broker=broker, queue_name="work")
    def bill(customer: User, due: Nowhere, other: str | datetime.date, to: str, day: datetime.date) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    messages = check_actors(YARD, broker)

    assert {message.id for message in messages} == {"switchyard.W025"}
    assert all(message.obj.startswith("actor bill (tests/unit/workers/test_actor_checks.py:") for message in messages)
    assert [(message.msg.partition(":")[0], message.hint) for message in messages] == [
        (
            "argument due has the annotation Nowhere, which counts as none",
            "import its names outside of TYPE_CHECKING, or leave the annotation out",
        ),
        (
            "argument other has the annotation str | datetime.date, which counts as none",
            "annotate one of the types, or Any",
        ),
    ]


def test_a_lifetime_of_results_that_are_not_stored_is_seen() -> None:
    class Results(Middleware):
        @property
        def actor_options(self) -> set[str]:
            return {"store_results", "result_ttl"}

    middleware = (Limits(), Results())
    without = broker_with(middleware, queue_name="work", result_ttl=60_000)
    stored = broker_with(middleware, queue_name="work", result_ttl=60_000, store_results=True)

    [message] = check_actors(YARD, without)
    assert message.id == "switchyard.W023"
    assert "store_results=True" in str(message.hint)
    assert check_actors(YARD, stored) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"catch_up": "skip"}, "its catch_up has no effect, because it is not periodic"),
        (
            {"search": ("name",), "redact": ("name",)},
            "no job is found by name, because redacted arguments are not kept",
        ),
        (
            {"unique_for": 5_000},
            "its unique_for has no effect on messages that are sent without a unique_key of their own",
        ),
        ({"catch_up": "skip", "periodic": "0 2 * * *"}, ""),
        ({"search": ("name",), "redact": ("mail",)}, ""),
        ({"unique_for": 5_000, "unique_key": "k"}, ""),
        ({"unique_for": 60, "unique_key": "k"}, "its unique_for is 60 ms, after which its key is free"),
    ],
)
def test_an_option_that_another_one_leaves_without_effect_is_seen(options: dict[str, Any], words: str) -> None:
    class Given(Middleware):
        @property
        def actor_options(self) -> set[str]:
            return {"catch_up", "periodic", "search", "redact", "unique_key", "unique_for"}

    found = check_actors(YARD, broker_with((Limits(), Given()), queue_name="work", **options))

    assert [message.msg for message in found] == ([words] if words else [])
    assert all(message.id == ("switchyard.W020" if " ms, " in words else "switchyard.W023") for message in found)


def test_an_actor_without_end_is_seen_with_the_limit_that_it_gets() -> None:
    limits = TimeLimits(yard=YARD, interrupts=ThreadInterrupts())

    [message] = check_actors(YARD, broker_with((limits,), queue_name="work", time_limit=None))

    assert (message.id, message.is_serious()) == ("switchyard.W023", False)
    assert message.msg == (
        "its time_limit is None; it ends after 1,900 ms, because the hard limit of queue work is 2,000 ms"
    )


@pytest.mark.parametrize(("pool", "lane"), [(0, "work"), (1, "work-retry")])
def test_an_async_actor_where_greenlets_run_it_is_refused(pool: int, lane: str) -> None:
    pools = tuple(replace(each, kind="gevent") if each is YARD.pools[pool] else each for each in YARD.pools)
    yard = Yard(YARD.queues, pools)
    broker = broker_with((Limits(), AsyncActors()), queue_name="work", time_limit=1_000)

    @dramatiq.actor(broker=broker, queue_name="work", time_limit=1_000)
    async def fetch() -> None: ...

    [message] = [found for found in check_actors(yard, broker) if found.id == "switchyard.E033"]

    assert message.is_serious()
    assert message.obj.startswith("actor fetch (tests/unit/workers/test_actor_checks.py:")
    assert (
        message.msg == f"is async, and pool {pools[pool].name} of kind gevent runs {lane}; its event loop needs threads"
    )
    assert check_actors(YARD, broker) == []
