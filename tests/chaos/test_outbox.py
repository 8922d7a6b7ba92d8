"""A commit and its messages are one, whoever is killed between any two steps: none is lost, none is there twice."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.embedded.server import EmbeddedServer
from switchyard.history.queries import were_enqueued
from switchyard.outbox import relay, rows
from switchyard.outbox.models import OutboxRow
from switchyard.outbox.relay import Relay
from switchyard.outbox.sends import CommitSends
from switchyard.wiring import build_yard
from tests.environment import POSTGRES
from tests.factories.brokers import the_global_broker
from tests.integration.outbox.conftest import YARD, actor_on, waiting

# Each is a place of a function, and whether the process dies before or after it.
OF_SENDER = {"after the row": (rows, "add", "after"), "after the commit": (CommitSends, "flush", "before")}
OF_BOTH = {
    "before the send": (RedisBroker, "put", "before"), "after the send": (RedisBroker, "put", "after"),
    "before the row is deleted": (rows, "delete", "before"), "after the row is deleted": (rows, "delete", "after"),
}  # fmt: skip
PROCESSES = 1_000
RUNS_MS = 30

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "valkey").start()
    yield server
    server.stop()


@pytest.fixture
def greet(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[dramatiq.Actor[..., Any]]:
    """An actor on a server and a broker of its own, whose rows are relayed at any age."""
    monkeypatch.setattr(relay, "LEFT_TO_SENDER_MS", -1_000)
    broker = build_yard(YARD, connect(server.url), Keys("outbox"), sends="outbox")
    with the_global_broker(broker):
        yield actor_on(broker, "hurry", "urgent")
    broker.close()


def in_process(act: Callable[[], object]) -> None:
    """Run an act in a process that dies at its end, if it does not before."""
    connections.close_all()
    if (pid := os.fork()) == 0:
        try:
            act()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def dying(gap: tuple[Any, str, str] | None, act: Callable[[], object]) -> Callable[[], object]:
    """Return an act that is killed at a gap; with ``None`` it is not."""
    if gap is None:
        return act
    owner, name, when = gap
    before = getattr(owner, name)

    def die(*args: Any, **options: Any) -> Any:
        if when == "after":
            before(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        setattr(owner, name, die)
        act()

    return run


def after_ms(delay_ms: float, act: Callable[[], object]) -> Callable[[], object]:
    """Return an act that is killed after a time, between any two of its instructions."""

    def run() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, delay_ms / 1_000)
        act()

    return run


def commit(greet: dramatiq.Actor[..., Any], name: str) -> Callable[[], None]:
    def act() -> None:
        with transaction.atomic():
            Group.objects.create(name=name)
            greet.send(name)

    return act


def relay_once() -> None:
    """Relay as a process that leads at once."""
    found = Relay(were_enqueued)
    found._leadership.acquire_or_renew = lambda: True  # type: ignore[method-assign]
    found.step()


def committed() -> list[str]:
    names = Group.objects.exclude(name__startswith="Switchyard").values_list("name", flat=True)
    return sorted(names)


def assert_sent_once(greet: dramatiq.Actor[..., Any]) -> None:
    relay_once()
    assert OutboxRow.objects.count() == 0
    assert sorted(waiting(greet.broker, "urgent")) == committed()


@pytest.mark.parametrize("gap", [*OF_SENDER, *OF_BOTH])
def test_a_sender_that_is_killed_loses_and_doubles_nothing(greet: dramatiq.Actor[..., Any], gap: str) -> None:
    in_process(dying((OF_SENDER | OF_BOTH)[gap], commit(greet, "Ada")))

    assert committed() == ([] if gap == "after the row" else ["Ada"])
    assert_sent_once(greet)


@pytest.mark.parametrize("gap", OF_BOTH)
def test_a_relay_that_is_killed_loses_and_doubles_nothing(greet: dramatiq.Actor[..., Any], gap: str) -> None:
    in_process(dying(OF_SENDER["after the commit"], commit(greet, "Ada")))

    in_process(dying(OF_BOTH[gap], relay_once))

    assert_sent_once(greet)


def test_a_commit_outlasts_its_broker(greet: dramatiq.Actor[..., Any], server: EmbeddedServer) -> None:
    commit(greet, "before")()
    server.stop()
    commit(greet, "meanwhile")()
    relay_once()
    during = committed(), OutboxRow.objects.count()
    server.start()

    assert during == (["before", "meanwhile"], 1)
    assert_sent_once(greet)


@contextmanager
def database_away() -> Iterator[None]:
    """Stop PostgreSQL, or hold the lock of SQLite, so that nothing else writes."""
    if POSTGRES:
        POSTGRES.stop()
        yield
        POSTGRES.start()
        return
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield


def database_killed(act: Callable[[], object], after_s: float) -> None:
    """Kill PostgreSQL while a process acts, and start it on what it had written."""
    assert POSTGRES is not None
    killed = threading.Timer(after_s, POSTGRES.kill)
    killed.start()
    in_process(act)
    killed.join()
    POSTGRES.start()


def impatient(act: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        if not POSTGRES:
            connection.settings_dict["OPTIONS"] |= {"timeout": 0.02}  # of the next connection
        act()

    return run


@pytest.mark.long
def test_a_thousand_kills(greet: dramatiq.Actor[..., Any], server: EmbeddedServer) -> None:
    seed = int(os.environ.get("OUTBOX_SEED") or random.SystemRandom().randrange(2**32))
    print(f"OUTBOX_SEED={seed}")
    draw = random.Random(seed)

    for number in range(PROCESSES):
        sends = draw.random() < 0.7
        act = commit(greet, f"{number}") if sends else relay_once
        gaps = [*(OF_SENDER | OF_BOTH if sends else OF_BOTH).values()]
        act = dying(draw.choice(gaps), act) if draw.random() < 0.7 else after_ms(draw.uniform(1, RUNS_MS), act)
        trouble = draw.random()
        if trouble < 0.02:
            server.stop()
            in_process(act)
            server.start()
        elif trouble < 0.05:
            connections.close_all()
            with database_away():
                in_process(impatient(act))
        elif trouble < 0.08 and POSTGRES:
            connections.close_all()
            database_killed(act, draw.uniform(0, 0.03))
        else:
            in_process(act)

    assert len(committed()) > PROCESSES / 4
    assert_sent_once(greet)
