"""How a child's worker is set up for its pool, and what it releases as it drains while the broker is away."""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dramatiq.worker
import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler
from dramatiq.brokers.stub import StubBroker

from switchyard import database
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.topology import Pool
from switchyard.broker.worker.prefetch import WorkQueue
from switchyard.conf import switchyard_settings
from switchyard.database import CONNECTION_AGE_S, keep_in_child
from switchyard.workers.child import main
from switchyard.workers.child.main import (
    Assignment,
    copy_log,
    drain,
    make_worker,
    read_assignment,
    release_all,
    release_unstarted,
)
from switchyard.workers.shared.child_table import ChildTable


def assignment(pool: Pool, lanes: tuple[str, ...], *, isolated: bool = False) -> Assignment:
    slots = 1 if isolated else pool.slots
    return Assignment(pool, "title", "child.1", 1, lanes, slots, grace_s=25.0, isolated=isolated)


@pytest.mark.parametrize(("name", "prefetch"), [("urgent", 4), ("slow", 1), ("default", 16)])
def test_a_pool_prefetches_what_it_declares_or_twice_its_slots(name: str, prefetch: int) -> None:
    pool = settings.SWITCHYARD.topology.pool(name)

    worker = make_worker(assignment(pool, pool.queues), StubBroker())

    assert (worker.queue_prefetch, worker.worker_threads) == (prefetch, pool.slots)


def test_a_child_for_what_runs_alone_holds_one_message() -> None:
    worker = make_worker(
        assignment(settings.SWITCHYARD.topology.pool("default"), ("default-alone",), isolated=True), StubBroker()
    )

    assert (worker.queue_prefetch, worker.worker_threads) == (1, 1)


def test_a_worker_consumes_its_lanes_and_no_others() -> None:
    pool = settings.SWITCHYARD.topology.pool("retries")

    worker = make_worker(assignment(pool, settings.SWITCHYARD.topology.served_by(pool)), StubBroker())

    assert worker.consumer_whitelist == set(settings.SWITCHYARD.topology.served_by(pool))
    assert "webhook-retry" not in worker.consumer_whitelist


def test_a_pool_without_lanes_never_becomes_a_worker_of_all_queues() -> None:
    idle = Pool("idle", "threads", (), processes=1, slots=1)

    with pytest.raises(ValueError, match="pool idle: it serves no lane"):
        make_worker(assignment(idle, ()), StubBroker())


def test_an_assignment_comes_through_a_command_line_as_it_is() -> None:
    given = assignment(settings.SWITCHYARD.topology.pool("webhook"), ("webhook", "webhook-retry"))

    assert read_assignment(json.loads(json.dumps(given.to_fields()))) == given


@pytest.mark.parametrize(
    ("declared", "kept", "age_s"),
    [
        (None, None, CONNECTION_AGE_S),
        (True, {"min_size": 0, "max_size": 5}, 0),
        ({"min_size": 8, "max_size": 8, "timeout": 2}, {"min_size": 5, "max_size": 5, "timeout": 2}, 0),
        ({"max_size": 2}, {"min_size": 0, "max_size": 5}, 0),
    ],
)
def test_a_child_keeps_its_connections_or_its_pool_has_room_for_each_slot_and_for_async_actors(
    declared: Any, kept: dict[str, int] | None, age_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared_database = {"ENGINE": "django.db.backends.postgresql", "NAME": "yard", "OPTIONS": {"pool": declared}}
    handler = ConnectionHandler({"default": declared_database})
    monkeypatch.setattr(database, "connections", handler)

    keep_in_child(slots=4)

    found = handler.settings["default"]
    assert found["OPTIONS"]["pool"] == kept
    assert (found["CONN_MAX_AGE"], found["CONN_HEALTH_CHECKS"]) == (age_s, True)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, with its own handlers afterwards."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield root
    root.handlers[:] = before


def test_the_log_is_copied_for_the_supervisor_and_every_handler_goes_on(
    root_logger: logging.Logger, tmp_path: Path
) -> None:
    [row] = ChildTable.create(1, 1).rows
    printed = StringIO()
    file = logging.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=10_000)
    root_logger.handlers[:] = [logging.StreamHandler(printed), file]

    copy_log(row)
    logging.getLogger("switchyard.workers").error("something is wrong")
    file.close()

    assert row.logged() == ["something is wrong"]
    assert printed.getvalue() == "something is wrong\n"
    assert (tmp_path / "log").read_text() == "something is wrong\n"


DRAMATIQ_S = 3.0


@pytest.mark.parametrize(
    ("url", "pause_s"),
    [("redis://valkey:6379/0", DRAMATIQ_S), ("redis+sentinel://one:26379,two:26379/mymaster/0", main.FAILOVER_PAUSE_S)],
)
def test_the_pause_is_short_where_a_replica_takes_over(
    url: str, pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(switchyard_settings(), broker_url=url)
    monkeypatch.setattr(main, "switchyard_settings", lambda: settings)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", DRAMATIQ_S)

    main.restart_soon()

    assert pause_s == dramatiq.worker.CONSUMER_RESTART_DELAY_SECS


class Consumer:
    """Consumer whose server is away for the first call."""

    def __init__(self) -> None:
        self.calls = 0
        self.released: list[str] = []

    def requeue_messages(self, messages: list[Any]) -> None:
        self.calls += 1
        if self.calls == 1:
            raise BrokerUnavailable("release", "timed out")
        self.released += [message.message_id for message in messages]


def item(token: str) -> Any:
    message = SimpleNamespace(message_id=token, queue_name="work", lease=SimpleNamespace(token=token), moved=False)
    return SimpleNamespace(priority=0, message=message)


@pytest.fixture
def worker() -> Any:
    """A worker whose threads are busy, with two prefetched messages."""
    queue = WorkQueue()
    for token in ("11", "9"):
        queue.put(item(token))
    return SimpleNamespace(work_queue=queue, consumers={"work": Consumer()}, workers=[])


def test_prefetched_messages_wait_on_where_the_broker_is_away_and_are_released_when_it_is_back(worker: Any) -> None:
    release_unstarted(worker)
    waiting = {each.message.message_id for each in worker.work_queue.waiting()}
    release_unstarted(worker)

    assert waiting == {"9", "11"}
    assert worker.consumers["work"].released == ["9", "11"]
    assert worker.work_queue.waiting() == []


def test_a_message_that_a_quiet_child_does_not_start_is_released_when_the_broker_is_back(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.001)
    worker.work_queue = WorkQueue()
    message = item("9").message

    release_all(worker, message)

    assert (worker.consumers["work"].released, message.moved) == (["9"], True)


def test_threads_start_nothing_more_before_the_hooks_of_a_shutdown_run(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    broker = SimpleNamespace(
        emit_before=lambda signal, worker: seen.append("hooks"),
        emit_after=lambda signal, worker: seen.append("end"),
        drain=lambda: seen.append("drain"),
    )
    worker.broker, worker.workers = broker, [SimpleNamespace(stop=lambda: seen.append("stop"), is_alive=bool)]
    flush = SimpleNamespace(barrier=SimpleNamespace(flush=lambda: None))
    monkeypatch.setattr(main, "facilities", lambda broker: flush)
    hygiene: Any = SimpleNamespace(slots=SimpleNamespace(running=[]), row=SimpleNamespace(retired=False))

    assert drain(worker, hygiene, 1.0) == 0

    assert seen == ["drain", "stop", "hooks", "end"]
