"""Mistakes of a yard, its environment, bouncer and retries are found and named by their id, with their fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler
from dramatiq.brokers.stub import StubBroker
from pytest_django import Settings

from project.config import VARIABLES
from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from switchyard.conf import KEYS, declared_yard
from switchyard.middleware.retries import Retries
from switchyard.workers.checks import check_actors, check_yard, yard_is_sound
from switchyard.workers.checks import database as bounced
from switchyard.workers.checks.installation import unknown_variables

FAST = Queue("fast", objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000)
LONG = Queue("long", objective_ms=60_000, soft_limit_ms=1_000, hard_limit_ms=2_000)
FAST_POOL = Pool("fast", "threads", ("fast",), processes=1, slots=4)
LONG_POOL = Pool("long", "processes", ("long",), processes=2, slots=1)
RETRIES = Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True)
SOUND = Yard(queues=(FAST, LONG), pools=(FAST_POOL, LONG_POOL, RETRIES))


def yard(*pools: Pool, queues: tuple[Queue, ...] = (FAST, LONG)) -> Yard:
    return Yard(queues=queues, pools=pools)


def found(wrong: Yard) -> list[str]:
    return [str(message.id) for message in check_yard(wrong)]


def test_a_sound_yard_has_nothing_wrong_with_it() -> None:
    assert check_yard(SOUND) == []


@pytest.mark.parametrize(
    ("wrong", "expected", "subject"),
    [
        pytest.param(yard(FAST_POOL, RETRIES), "switchyard.E007", "queue long", id="a queue that no pool serves"),
        pytest.param(
            yard(FAST_POOL, LONG_POOL, Pool("retries", "threads", ("fast-retry",), processes=1, slots=1)),
            "switchyard.E007",
            "retry lane long-retry",
            id="a retry lane that no pool serves",
        ),
        pytest.param(
            yard(FAST_POOL, LONG_POOL, RETRIES, Pool("idle", "threads", (), processes=1, slots=1)),
            "switchyard.E008",
            "pool idle",
            id="a pool without lanes, which would consume all",
        ),
        pytest.param(
            yard(replace(FAST_POOL, queues=("fast", "other")), replace(LONG_POOL, queues=("long",)), RETRIES),
            "switchyard.E001",
            "pool fast",
            id="a pool that serves an undeclared queue",
        ),
        pytest.param(
            yard(FAST_POOL, replace(LONG_POOL, queues=("long", "fast-retry")), RETRIES),
            "switchyard.E009",
            "pool long",
            id="a pool that serves live work beside retries",
        ),
        pytest.param(
            yard(FAST_POOL, LONG_POOL, replace(RETRIES, queues=("fast",))),
            "switchyard.E009",
            "pool retries",
            id="a pool of shared retries that serves live work",
        ),
        pytest.param(
            yard(replace(FAST_POOL, database_connections=3), LONG_POOL, RETRIES),
            "switchyard.E010",
            "pool fast",
            id="more slots than database connections",
        ),
        pytest.param(
            yard(replace(FAST_POOL, queues=("fast", "long-dead")), LONG_POOL, RETRIES),
            "switchyard.E011",
            "pool fast",
            id="a pool that serves a dead list",
        ),
    ],
)
def test_a_mistake_is_named_with_its_fix(wrong: Yard, expected: str, subject: str) -> None:
    messages = check_yard(wrong)

    assert [(message.id, message.obj) for message in messages] == [(expected, subject)]
    assert messages[0].is_serious()
    assert "the topology" in str(messages[0].hint)


def test_a_pool_that_watches_everything_is_refused() -> None:
    everything = Pool("all", "threads", ("fast", "long"), processes=1, slots=8)

    assert found(yard(everything, RETRIES)) == ["switchyard.E008", "switchyard.E009"]


@pytest.mark.parametrize(("objective_ms", "ids"), [(400, []), (401, ["switchyard.E009"]), (None, ["switchyard.E009"])])
def test_objectives_more_than_four_times_apart_do_not_share_a_pool(objective_ms: int | None, ids: list[str]) -> None:
    other = replace(LONG, name="other", objective_ms=objective_ms)
    both = Pool("both", "threads", ("fast", "other"), processes=1, slots=4)

    assert found(yard(both, LONG_POOL, RETRIES, queues=(FAST, LONG, other))) == ids


def test_a_queue_named_as_a_dead_list_is_refused() -> None:
    dead = Queue("fast-dead", objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000)

    assert "switchyard.E011" in found(yard(FAST_POOL, LONG_POOL, RETRIES, queues=(FAST, LONG, dead)))


@pytest.mark.parametrize("name", ["fast-retry", "fast-alone", "other-retry", "other-alone"])
def test_a_queue_named_as_a_lane_is_refused(name: str) -> None:
    lane = Queue(name, objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000)

    messages = check_yard(yard(FAST_POOL, LONG_POOL, RETRIES, queues=(FAST, LONG, lane)))

    assert ("switchyard.E011", f"queue {name}") in [(message.id, message.obj) for message in messages]


@pytest.mark.parametrize(
    ("pool", "needed"),
    [
        pytest.param(FAST_POOL, 4 + 4 + 4, id="a child that replaces another, and those that run what must run alone"),
        pytest.param(replace(FAST_POOL, kind="gevent"), 4 + 4 + 2, id="executed children"),
    ],
)
def test_every_child_that_may_run_counts_for_the_database(pool: Pool, needed: int) -> None:
    assert found(yard(replace(pool, database_connections=needed), LONG_POOL, RETRIES)) == []
    assert found(yard(replace(pool, database_connections=needed - 1), LONG_POOL, RETRIES)) == ["switchyard.E010"]


def test_a_pool_of_greenlets_without_gevent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = declared_yard()
    assert check_yard(yard) == []
    monkeypatch.setattr("switchyard.workers.checks.actors.find_spec", lambda name: None)

    found = check_yard(yard)

    assert {(message.id, message.obj) for message in found} == {
        ("switchyard.E033", f"pool {pool.name}") for pool in yard.pools if pool.kind == "gevent"
    }
    assert "pip install gevent" in str(found[0].hint)


def test_a_memory_limit_that_an_idle_child_reaches_is_named() -> None:
    small = replace(FAST_POOL, memory_limit_bytes=64_000_000)

    [message] = check_yard(yard(small, LONG_POOL, RETRIES))

    assert (message.id, message.obj) == ("switchyard.W009", f"pool {small.name}")
    assert message.msg.startswith("memory_limit_bytes is 64 MB, and an idle child takes about 120 MB")


def test_the_pool_of_a_small_yard_may_watch_everything_and_no_other() -> None:
    small = SOUND.small(slots=4)

    assert check_yard(small) == []
    watching = replace(small, pools=(replace(small.pools[0], promises=()),))
    assert found(watching) == ["switchyard.E008", "switchyard.E009"]
    assert "switchyard.E009" in found(replace(small, pools=(*small.pools, LONG_POOL)))


def test_a_misspelt_variable_is_named_with_the_nearest_one_and_without_its_value() -> None:
    (found,) = unknown_variables({"SWITCHYARD_BROKER_ULR": "redis://:hunter2@valkey"})

    assert (found.id, found.obj) == ("switchyard.W032", "SWITCHYARD_BROKER_ULR")
    assert "Did you mean SWITCHYARD_BROKER_URL?" in str(found.hint) and "hunter2" not in f"{found.msg}{found.hint}"


@pytest.mark.parametrize(
    "name",
    [
        *sorted(variable for variable in KEYS.values() if variable),
        *VARIABLES,
        "SWITCHYARD_CHILD_MIDDLEWARE",
        "SWITCHYARD_MEASURED_QUEUE",
        "SWITCHYARD_SERVICE_HOST",
        "SWITCHYARD_WEB_SERVICE_PORT_HTTP",
        "SWITCHYARD_WEB_PORT",
        "SWITCHYARD_PORT_8000_TCP_ADDR",
        "OTHER_BROKER_ULR",
    ],
)
def test_variables_that_are_read_or_set_by_others_are_not_warned_of(name: str) -> None:
    assert not list(unknown_variables({name: "x"}))


Bounce = Callable[..., None]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Bounce:
    """Declare the default database as a PostgreSQL: ``database(bounced=True, pool=…)``."""

    def declare(*, bounced_: bool = True, **options: Any) -> None:
        entry = {"ENGINE": "django.db.backends.postgresql", "NAME": "yard", "OPTIONS": options}
        databases = {"default": entry | {"DISABLE_SERVER_SIDE_CURSORS": bounced_}}
        monkeypatch.setattr(settings, "DATABASES", databases)
        monkeypatch.setattr(bounced, "connections", ConnectionHandler(databases))

    return declare


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("pool", {"max_size": 3}), ("pool", True), ("options", "-c lock_timeout=5s"), ("prepare_threshold", 5)),
        *(("server_side_binding", True), ("assume_role", "owner")),
    ],
)
def test_an_option_that_needs_a_session_is_refused(option: str, value: Any, database: Bounce) -> None:
    database(**{option: value, "connect_timeout": 5})

    [found] = bounced.forbidden_options()

    assert (found.id, found.obj) == ("switchyard.E023", "database default")
    assert repr(option) in found.msg and found.hint


def test_options_of_a_server_and_harmless_ones_are_allowed(database: Bounce) -> None:
    database(connect_timeout=5, prepare_threshold=None, pool=None)
    assert not list(bounced.forbidden_options())

    database(bounced_=False, pool=True, options="-c lock_timeout=5s")
    assert not list(bounced.forbidden_options())


SHORT = RetryPolicy(max_retries=5, base_ms=1_000)


def yard_with(**options: Any) -> Yard:
    queue = Queue("mail", objective_ms=1_000, soft_limit_ms=1_000, hard_limit_ms=2_000, **options)
    return replace(declared_yard(), queues=(*declared_yard().queues, queue))


def of_retries(messages: list[Any]) -> list[tuple[Any, str]]:
    return [(message.obj, message.msg) for message in messages if message.id == "switchyard.W007"]


def actor_warnings(declared: Yard, **options: Any) -> list[tuple[Any, str]]:
    broker = StubBroker(middleware=[Retries(yard=declared, transport=None)])  # type: ignore[arg-type]
    dramatiq.actor(lambda: None, actor_name="send", queue_name="mail", broker=broker, **options)
    warnings = of_retries(check_actors(declared, broker))
    place = r" \(tests/unit/workers/test_yard_checks\.py:\d+\)"
    assert all(re.search(place, subject) for subject, _ in warnings)
    return [(re.sub(place, "", subject), fact) for subject, fact in warnings]


def test_a_queue_whose_retries_end_within_a_minute_is_named_with_what_it_calls() -> None:
    [(subject, fact)] = of_retries(check_yard(yard_with(retry=SHORT, calls="mail server")))

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
    assert of_retries(check_yard(yard_with(**options))) == []


@pytest.mark.parametrize(
    "options",
    [{"max_retries": 3}, {"backoff": lambda retry: 1_000}, {"max_backoff": 10_000}],
    ids=["fewer", "sooner", "never late"],
)
def test_an_actor_that_shortens_them_is_named(options: dict[str, Any]) -> None:
    [(subject, fact)] = actor_warnings(yard_with(calls="mail server"), **options)

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
    assert actor_warnings(yard_with(calls="mail server"), **options) == []
    assert actor_warnings(yard_with(), max_retries=3) == []


def test_hurried_retries_are_refused_in_production_alone(settings: Settings) -> None:
    hurried = replace(settings.SWITCHYARD, topology=declared_yard().hurried(1_500))

    settings.SWITCHYARD = replace(hurried, debug=False)
    refused = yard_is_sound()
    settings.SWITCHYARD = replace(hurried, debug=True)

    assert [(message.id, message.obj) for message in refused] == [("switchyard.E034", "yard")]
    assert yard_is_sound() == []
