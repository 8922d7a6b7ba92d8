"""Mistakes of a yard, its environment, bouncer, retries and actors are found and named by their id, with their fix."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.checks import CheckMessage
from django.db import transaction
from django.db.utils import ConnectionHandler
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Callbacks, Middleware

from project.config import VARIABLES
from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from switchyard.conf import KEYS, declared_yard
from switchyard.middleware.async_actors import AsyncActors
from switchyard.middleware.interrupts import ThreadInterrupts
from switchyard.middleware.retries import Retries
from switchyard.middleware.time_limits import TimeLimits
from switchyard.workers.checks import check_actors, check_yard, yard_is_sound
from switchyard.workers.checks import database as bounced
from switchyard.workers.checks.installation import unknown_variables

FAST = Queue("fast", objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000)
LONG = Queue("long", objective_ms=60_000, soft_limit_ms=1_000, hard_limit_ms=2_000)
FAST_POOL = Pool("fast", "threads", ("fast",), processes=1, slots=4)
LONG_POOL = Pool("long", "processes", ("long",), processes=2, slots=1)
RETRIES = Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True)
IDLE, LANE = Pool("idle", "threads", (), processes=1, slots=1), ("fast-retry",)
SOUND = Yard(queues=(FAST, LONG), pools=(FAST_POOL, LONG_POOL, RETRIES))


def yard(*pools: Pool, queues: tuple[Queue, ...] = (FAST, LONG)) -> Yard:
    return Yard(queues=queues, pools=pools)


def but(pool: Pool, **changes: Any) -> Yard:
    """Return the sound yard with one pool changed."""
    return replace(SOUND, pools=tuple(replace(each, **changes) if each is pool else each for each in SOUND.pools))


def found(wrong: Yard) -> list[str]:
    return [str(message.id) for message in check_yard(wrong)]


MISTAKES = {
    "a queue that no pool serves": (yard(FAST_POOL, RETRIES), "E007", "queue long"),
    "a retry lane of no pool": (but(RETRIES, queues=LANE, shared_retries=False), "E007", "retry lane long-retry"),
    "a pool without lanes, which would consume all": (yard(*SOUND.pools, IDLE), "E008", "pool idle"),
    "a pool that serves an undeclared queue": (but(FAST_POOL, queues=("fast", "other")), "E001", "pool fast"),
    "a pool that serves live work beside retries": (but(LONG_POOL, queues=("long", *LANE)), "E009", "pool long"),
    "a pool of shared retries that serves live work": (but(RETRIES, queues=("fast",)), "E009", "pool retries"),
    "more slots than database connections": (but(FAST_POOL, database_connections=3), "E010", "pool fast"),
    "a pool that serves a dead list": (but(FAST_POOL, queues=("fast", "long-dead")), "E011", "pool fast"),
}


@pytest.mark.parametrize(("wrong", "expected", "subject"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_fix(wrong, expected, subject):
    [message] = check_yard(wrong)

    assert check_yard(SOUND) == []
    assert (message.id, message.obj, message.is_serious()) == (f"switchyard.{expected}", subject, True)
    assert "the topology" in str(message.hint)


def test_a_pool_that_watches_everything_is_refused():
    everything = Pool("all", "threads", ("fast", "long"), processes=1, slots=8)

    assert found(yard(everything, RETRIES)) == ["switchyard.E008", "switchyard.E009"]


@pytest.mark.parametrize(("objective_ms", "ids"), [(400, []), (401, ["switchyard.E009"]), (None, ["switchyard.E009"])])
def test_objectives_more_than_four_times_apart_do_not_share_a_pool(objective_ms, ids):
    other = replace(LONG, name="other", objective_ms=objective_ms)
    both = Pool("both", "threads", ("fast", "other"), processes=1, slots=4)

    assert found(yard(both, LONG_POOL, RETRIES, queues=(FAST, LONG, other))) == ids


@pytest.mark.parametrize("name", ["fast-dead", "fast-retry", "fast-alone", "other-retry", "other-alone"])
def test_a_queue_named_as_a_lane_or_a_dead_list_is_refused(name):
    messages = check_yard(yard(*SOUND.pools, queues=(FAST, LONG, replace(FAST, name=name))))

    assert ("switchyard.E011", f"queue {name}") in [(message.id, message.obj) for message in messages]


# A child that replaces another, and those that run what must run alone; executed children of gevent.
@pytest.mark.parametrize(("kind", "needed"), [("threads", 4 + 4 + 4), ("gevent", 4 + 4 + 2)])
def test_every_child_that_may_run_counts_for_the_database(kind, needed):
    assert found(but(FAST_POOL, kind=kind, database_connections=needed)) == []
    assert found(but(FAST_POOL, kind=kind, database_connections=needed - 1)) == ["switchyard.E010"]


def test_a_pool_of_greenlets_without_gevent_is_refused(monkeypatch):
    yard = declared_yard()
    assert check_yard(yard) == []
    monkeypatch.setattr("switchyard.workers.checks.actors.find_spec", lambda name: None)

    found = check_yard(yard)

    assert {(message.id, message.obj) for message in found} == {
        ("switchyard.E033", f"pool {pool.name}") for pool in yard.pools if pool.kind == "gevent"
    }
    assert "pip install gevent" in str(found[0].hint)


def test_a_memory_limit_that_an_idle_child_reaches_is_named():
    [message] = check_yard(but(FAST_POOL, memory_limit_bytes=64_000_000))

    assert (message.id, message.obj) == ("switchyard.W009", "pool fast")
    assert message.msg.startswith("memory_limit_bytes is 64 MB, and an idle child takes about 120 MB")


def test_the_pool_of_a_small_yard_may_watch_everything_and_no_other():
    small = SOUND.small(slots=4)

    assert check_yard(small) == []
    watching = replace(small, pools=(replace(small.pools[0], promises=()),))
    assert found(watching) == ["switchyard.E008", "switchyard.E009"]
    assert "switchyard.E009" in found(replace(small, pools=(*small.pools, LONG_POOL)))


def test_a_misspelt_variable_is_named_with_the_nearest_one_and_without_its_value():
    (found,) = unknown_variables({"SWITCHYARD_BROKER_ULR": "redis://:hunter2@valkey"})

    assert (found.id, found.obj) == ("switchyard.W032", "SWITCHYARD_BROKER_ULR")
    assert "Did you mean SWITCHYARD_BROKER_URL?" in str(found.hint) and "hunter2" not in f"{found.msg}{found.hint}"


@pytest.mark.parametrize(
    "name",
    [
        *sorted(variable for variable in KEYS.values() if variable),
        *(*VARIABLES, "SWITCHYARD_CHILD_MIDDLEWARE", "SWITCHYARD_MEASURED_QUEUE", "SWITCHYARD_SERVICE_HOST"),
        *("SWITCHYARD_WEB_SERVICE_PORT_HTTP", "SWITCHYARD_WEB_PORT", "SWITCHYARD_PORT_8000_TCP_ADDR"),
        "OTHER_BROKER_ULR",
    ],
)
def test_variables_that_are_read_or_set_by_others_are_not_warned_of(name):
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
        ("pool", {"max_size": 3}),
        ("pool", True),
        ("options", "-c lock_timeout=5s"),
        ("prepare_threshold", 5),
        ("server_side_binding", True),
        ("assume_role", "owner"),
    ],
)
def test_an_option_that_needs_a_session_is_refused(option, value, database):
    database(**{option: value, "connect_timeout": 5})

    [found] = bounced.forbidden_options()

    assert (found.id, found.obj) == ("switchyard.E023", "database default")
    assert repr(option) in found.msg and found.hint


def test_options_of_a_server_and_harmless_ones_are_allowed(database):
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
    place = r" \(tests/unit/workers/test_checks\.py:\d+\)"
    assert all(re.search(place, subject) for subject, _ in warnings)
    return [(re.sub(place, "", subject), fact) for subject, fact in warnings]


def test_a_queue_whose_retries_end_within_a_minute_is_named_with_what_it_calls():
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
def test_other_queues_are_not(options):
    assert of_retries(check_yard(yard_with(**options))) == []


@pytest.mark.parametrize(
    "options",
    [{"max_retries": 3}, {"backoff": lambda retry: 1_000}, {"max_backoff": 10_000}],
    ids=["fewer", "sooner", "never late"],
)
def test_an_actor_that_shortens_them_is_named(options):
    [(subject, fact)] = actor_warnings(yard_with(calls="mail server"), **options)

    assert subject == "actor send"
    assert "mail server" in fact


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"max_retries": 0}, {"max_retries": 9}, {"backoff": lambda retry: 600_000}),
        {"max_retries": None, "max_backoff": 10_000},
        {"min_backoff": 600_000, "max_retries": 2},
        {"max_retries": 3, "retry_when": lambda retries, exception: True},
    ],
)
def test_an_actor_that_does_not_is_not(options):
    assert actor_warnings(yard_with(calls="mail server"), **options) == []
    assert actor_warnings(yard_with(), max_retries=3) == []


def test_hurried_retries_are_refused_in_production_alone(settings):
    hurried = replace(settings.SWITCHYARD, topology=replace(declared_yard(), retry_speed=1_500))

    settings.SWITCHYARD = replace(hurried, debug=False)
    refused = yard_is_sound()
    settings.SWITCHYARD = replace(hurried, debug=True)

    assert [(message.id, message.obj) for message in refused] == [("switchyard.E034", "yard")]
    assert yard_is_sound() == []


YARD = Yard(
    queues=(Queue("work", objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000),),
    pools=(
        Pool("work", "threads", ("work",), processes=1, slots=1),
        Pool("retries", "threads", (), processes=1, slots=1, shared_retries=True),
    ),
)


def taking(*options: str) -> Middleware:
    """Return a middleware that knows these options of actors."""
    return type("Taking", (Middleware,), {"actor_options": set(options)})()


def broker_with(middleware: tuple[Middleware, ...] = (taking("time_limit"),), **options: Any) -> StubBroker:
    broker = StubBroker(middleware=list(middleware))
    dramatiq.actor(lambda: None, actor_name="one", broker=broker, **options)
    return broker


def told(broker: StubBroker) -> list[tuple[str | None, Any]]:
    return [(message.id, str(message.obj).partition(" (")[0]) for message in check_actors(YARD, broker)]


def found_in(*functions: Any) -> list[CheckMessage]:
    """Return what is said of functions as actors."""
    broker = broker_with(queue_name="work")
    for function in functions:
        dramatiq.actor(function, broker=broker, queue_name="work")
    return check_actors(YARD, broker)


def test_an_actor_on_an_undeclared_queue_is_refused_with_those_that_exist():
    messages = check_actors(YARD, broker_with(queue_name="wrok"))

    assert messages[0].id == "switchyard.E001"
    assert re.fullmatch(r"actor one \(tests/unit/workers/test_checks\.py:\d+\)", messages[0].obj)
    assert "Use one of work" in str(messages[0].hint)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [*((limit, "E002") for limit in (None, float("inf"), 0, -1, "5s")), (2_000, "E003"), (9_000, "E003"), (1_999, "")],
)
def test_an_actor_has_a_limit_below_its_queues_hard_limit_by_default_that_of_its_queue(limit, expected):
    assert told(broker_with(queue_name="work")) == []
    one = [(f"switchyard.{expected}", "actor one")] if expected else []
    assert told(broker_with(queue_name="work", time_limit=limit)) == one


def test_a_callback_that_no_actor_has_is_refused_with_its_place():
    broker = broker_with(queue_name="work")
    broker.add_middleware(Callbacks())
    dramatiq.actor(lambda: None, actor_name="two", queue_name="work", broker=broker, on_failure="on", on_success="one")

    broker.add_middleware(dramatiq.middleware.Retries())
    dramatiq.actor(lambda: None, actor_name="three", queue_name="work", broker=broker, on_retry_exhausted="four")

    [message, other] = check_actors(YARD, broker)

    assert (message.id, message.msg) == ("switchyard.E022", "on_failure is 'on': no actor is called so")
    assert (other.id, other.msg) == ("switchyard.E022", "on_retry_exhausted is 'four': no actor is called so")
    assert message.hint == "Did you mean 'one'?"
    assert re.fullmatch(r"actor two \(tests/unit/workers/test_checks\.py:\d+\)", message.obj)


def test_an_actor_on_a_dead_list_and_a_dead_list_declared_as_a_queue_are_refused():
    broker = broker_with(queue_name="work")
    broker.declare_queue("work-dead")

    assert told(broker_with(queue_name="work-dead")) == [("switchyard.E011", "actor one")]
    assert told(broker) == [("switchyard.E011", "queue work-dead")]


@pytest.mark.parametrize(("limit", "hint"), [(30, "time_limit=30_000"), (0.5, "time_limit=500"), (999, "=999_000")])
def test_a_time_limit_that_was_meant_in_seconds_is_seen(limit, hint):
    [message] = check_actors(YARD, broker_with(queue_name="work", time_limit=limit))

    assert (message.id, message.is_serious()) == ("switchyard.W020", False)
    assert hint in str(message.hint)


def test_a_method_is_no_actor():
    class Report:
        def render(self, month: str) -> None: ...

    [message] = found_in(Report.render)

    assert (message.id, message.is_serious()) == ("switchyard.W022", False)
    assert message.obj.startswith("actor render (tests/unit/workers/test_checks.py:")
    assert "its first parameter is 'self'" in message.msg


def test_an_actor_below_another_decorator_is_seen(monkeypatch):
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
    assert message.obj.startswith("actor book (tests/unit/workers/test_checks.py:")
    assert "book.send(...) fails" in message.msg
    assert message.hint == "Put @dramatiq.actor(...) above the other decorators."


def test_a_generator_is_no_actor():
    def pages(month: str) -> Iterator[str]:
        yield month

    async def rows(month: str) -> AsyncIterator[str]:
        yield month

    first, second = found_in(pages, rows)

    assert {first.id, second.id} == {"switchyard.W022"}
    assert first.obj.startswith("actor pages (tests/unit/workers/test_checks.py:")
    assert second.obj.startswith("actor rows (")
    assert "none of its code runs" in first.msg


def test_an_annotation_that_counts_as_none_is_seen():
    def bill(customer: User, due: Nowhere, other: str | datetime.date, to: str, day: datetime.date) -> None: ...  # noqa: F821

    messages = found_in(bill)

    assert {message.id for message in messages} == {"switchyard.W025"}
    assert all(message.obj.startswith("actor bill (tests/unit/workers/test_checks.py:") for message in messages)
    counts = "which counts as none"
    assert [(message.msg.partition(":")[0], message.hint) for message in messages] == [
        (f"argument {argument}, {counts}", hint)
        for argument, hint in (
            (
                "due has the annotation Nowhere",
                "import its names outside of TYPE_CHECKING, or leave the annotation out",
            ),
            ("other has the annotation str | datetime.date", "annotate one of the types, or Any"),
        )
    ]


def test_a_lifetime_of_results_that_are_not_stored_is_seen():
    middleware = (taking("time_limit", "store_results", "result_ttl"),)
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
def test_an_option_that_another_one_leaves_without_effect_is_seen(options, words):
    given = taking("time_limit", "catch_up", "periodic", "search", "redact", "unique_key", "unique_for")

    found = check_actors(YARD, broker_with((given,), queue_name="work", **options))

    assert [message.msg for message in found] == ([words] if words else [])
    assert all(message.id == ("switchyard.W020" if " ms, " in words else "switchyard.W023") for message in found)


def test_an_actor_without_end_is_seen_with_the_limit_that_it_gets():
    limits = TimeLimits(yard=YARD, interrupts=ThreadInterrupts())

    [message] = check_actors(YARD, broker_with((limits,), queue_name="work", time_limit=None))

    assert (message.id, message.is_serious()) == ("switchyard.W023", False)
    assert message.msg == (
        "its time_limit is None; it ends after 1,900 ms, because the hard limit of queue work is 2,000 ms"
    )


@pytest.mark.parametrize(("pool", "lane"), [(0, "work"), (1, "work-retry")])
def test_an_async_actor_where_greenlets_run_it_is_refused(pool, lane):
    pools = tuple(replace(each, kind="gevent") if each is YARD.pools[pool] else each for each in YARD.pools)
    yard = Yard(YARD.queues, pools)
    broker = broker_with((taking("time_limit"), AsyncActors()), queue_name="work", time_limit=1_000)

    @dramatiq.actor(broker=broker, queue_name="work", time_limit=1_000)
    async def fetch() -> None: ...

    [message] = [found for found in check_actors(yard, broker) if found.id == "switchyard.E033"]

    assert message.is_serious()
    assert message.obj.startswith("actor fetch (tests/unit/workers/test_checks.py:")
    assert (
        message.msg == f"is async, and pool {pools[pool].name} of kind gevent runs {lane}; its event loop needs threads"
    )
    assert check_actors(YARD, broker) == []
