"""A child: its worker and row, what it takes, runs and works off, its memory, and what it releases as it drains."""

import json
import logging
import logging.handlers
import mmap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import dramatiq.worker
import pytest
import redis
from django.conf import settings
from django.db.utils import ConnectionHandler
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from dramatiq.middleware import SkipMessage

from switchyard import database
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Lease
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Pool
from switchyard.broker.worker.prefetch import WorkQueue
from switchyard.conf import switchyard_settings
from switchyard.database import CONNECTION_AGE_S, keep_in_child
from switchyard.middleware.outcomes import outcome_of
from switchyard.middleware.wait_for_broker import retry_until_available
from switchyard.workers.child import hygiene, main, slot_tracking
from switchyard.workers.child.hygiene import LOADED_BYTES, LOADS_S, ChildHygiene
from switchyard.workers.child.slot_tracking import REST_BYTES, MemoryGuard, SlotTracking, memory_meter
from switchyard.workers.shared.child_table import ChildRow, ChildTable
from tests.factories.yards import small_yard


def assignment(pool: Pool, lanes: tuple[str, ...], *, isolated: bool = False) -> main.Assignment:
    slots = 1 if isolated else pool.slots
    return main.Assignment(pool, "title", "child.1", 1, lanes, slots, grace_s=25.0, isolated=isolated)


@pytest.mark.parametrize(
    ("name", "isolated", "prefetch"),
    [("urgent", False, 4), ("slow", False, 1), ("default", False, 16), ("default", True, 1)],
)
def test_a_pool_prefetches_what_it_declares_or_twice_its_slots(name, isolated, prefetch):
    pool = settings.SWITCHYARD.topology.pool(name)

    worker = main.make_worker(assignment(pool, pool.queues, isolated=isolated), StubBroker())

    assert (worker.queue_prefetch, worker.worker_threads) == (prefetch, 1 if isolated else pool.slots)


def test_a_worker_consumes_its_lanes_and_no_others_and_a_pool_without_lanes_has_none():
    pool = settings.SWITCHYARD.topology.pool("retries")

    worker = main.make_worker(assignment(pool, settings.SWITCHYARD.topology.served_by(pool)), StubBroker())

    assert worker.consumer_whitelist == set(settings.SWITCHYARD.topology.served_by(pool))
    assert "webhook-retry" not in worker.consumer_whitelist

    idle = Pool("idle", "threads", (), processes=1, slots=1)

    with pytest.raises(ValueError, match="pool idle: it serves no lane"):
        main.make_worker(assignment(idle, ()), StubBroker())


def test_an_assignment_comes_through_a_command_line_as_it_is():
    given = assignment(settings.SWITCHYARD.topology.pool("webhook"), ("webhook", "webhook-retry"))

    assert main.read_assignment(json.loads(json.dumps(given.to_fields()))) == given


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
    declared, kept, age_s, monkeypatch
):
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


def test_the_log_is_copied_for_the_supervisor_and_handlers_go_on(root_logger, tmp_path):
    [row] = ChildTable.create(1, 1).rows
    printed = StringIO()
    file = logging.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=10_000)
    root_logger.handlers[:] = [logging.StreamHandler(printed), file]

    main.copy_log(row)
    logging.getLogger("switchyard.workers").error("something is wrong")
    file.close()

    assert (row.logged(), printed.getvalue()) == (["something is wrong"], "something is wrong\n")
    assert (tmp_path / "log").read_text() == "something is wrong\n"


DRAMATIQ_S = 3.0


@pytest.mark.parametrize(
    ("url", "pause_s"),
    [("redis://valkey:6379/0", DRAMATIQ_S), ("redis+sentinel://one:26379,two:26379/mymaster/0", main.FAILOVER_PAUSE_S)],
)
def test_a_pause_is_short_where_replicas_take_over(url, pause_s, monkeypatch):
    settings = replace(switchyard_settings(), broker_url=url)
    monkeypatch.setattr(main, "switchyard_settings", lambda: settings)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", DRAMATIQ_S)

    main.restart_soon()

    assert pause_s == dramatiq.worker.CONSUMER_RESTART_DELAY_SECS


class Consumer:
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
    queue = WorkQueue()
    for token in ("11", "9"):
        queue.put(item(token))
    return SimpleNamespace(work_queue=queue, consumers={"work": Consumer()}, workers=[])


def test_prefetched_messages_wait_on_where_the_broker_is_away_and_are_released_when_it_is_back(worker):
    main.release_unstarted(worker)
    waiting = {each.message.message_id for each in worker.work_queue.waiting()}
    main.release_unstarted(worker)

    assert (waiting, worker.consumers["work"].released) == ({"9", "11"}, ["9", "11"])
    assert worker.work_queue.waiting() == []


def test_what_a_quiet_child_does_not_start_is_released_later(worker, monkeypatch):
    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.001)
    worker.work_queue = WorkQueue()
    message = item("9").message

    main.release_all(worker, message)

    assert (worker.consumers["work"].released, message.moved) == (["9"], True)


def test_threads_start_nothing_before_the_hooks_of_a_shutdown_run(worker, monkeypatch):
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

    assert main.drain(worker, hygiene, 1.0) == 0

    assert seen == ["drain", "stop", "hooks", "end"]


LANES = ("work", "work-retry")


@pytest.fixture
def row() -> ChildRow:
    """A row for two slots, of a child that has its leases."""
    found = ChildTable.create(1, 2).rows[0]
    found.lease(time.monotonic() + 60)
    return found


class Child:
    """A child with its row, on a broker that asks no server."""

    def __init__(self, row: ChildRow) -> None:
        self.row, self.broker = row, RedisBroker(redis.Redis(), Keys(), middleware=[])
        self.slots = SlotTracking(self.broker, row, small_yard(), LANES)

    def take(self, id_: str, token: int, lane: str = "work") -> HeldMessage:
        """Return a message that is held under a token, as a consumer hands it out."""
        message: Message[Any] = Message(lane, "job", (), {}, {}, id_, 0)
        self.broker.declare_queue(lane)
        family, kind = self.broker.lane(lane)
        held = HeldMessage(message, Lease(f"child/{kind}", id_.encode(), b"%d" % token), family)
        self.broker.in_flight[id_] = held
        return held

    def process(self, held: HeldMessage) -> None:
        self.slots.before_process_message(self.broker, held)

    def start(self, id_: str, token: int, lane: str = "work") -> HeldMessage:
        held = self.take(id_, token, lane)
        self.process(held)
        return held

    def ack(self, held: HeldMessage) -> None:
        self.slots.after_ack(self.broker, held)


@pytest.fixture
def child(row: ChildRow) -> Child:
    return Child(row)


def test_a_slot_is_busy_until_its_message_is_acknowledged(child, row):
    held = child.start("a", 5, "work-retry")
    runs, at_work = row.running(), child.slots.running

    child.ack(held)
    row.confirm_flush(row.last_end())

    assert [(found.id, found.lane, found.token) for found in runs] == [(b"a", 1, 5)]
    assert runs[0].over_at_ns
    assert (at_work, child.slots.running, row.running()) == ([held], [], [])
    assert [(found.id, found.lane, found.token) for found in row.finished()] == [(b"a", 1, 5)]
    assert row.read().done == 1


def test_a_quiet_child_starts_nothing_and_releases_what_it_fetched(child, row):
    released: list[Any] = []
    child.slots.release = released.append
    held = child.take("a", 5)
    row.quiet = True

    with pytest.raises(SkipMessage):
        child.process(held)

    assert (released, row.running(), outcome_of(held).kind) == ([held], [], "deferred")


def test_a_child_that_runs_beside_others_leaves_a_lapse_suspect_and_ends(child, row):
    child.slots = SlotTracking(child.broker, row, small_yard(), LANES, quiet_for_suspects=True)
    suspect = child.take("suspect", 6)
    suspect.lapses = ()
    child.start("crashed", 5)

    with pytest.raises(SkipMessage):
        child.process(suspect)

    assert row.quiet
    assert [ran.id for ran in row.running()] == [b"crashed"]


@pytest.mark.parametrize("side", ["ack", "nack"])
def test_what_was_moved_or_buried_is_not_finished(child, row, side):
    held = child.start("a", 5)
    held.moved = True

    {"ack": child.slots.after_ack, "nack": child.slots.after_nack}[side](child.broker, held)
    row.confirm_flush(row.last_end())

    assert (row.running(), row.finished(), row.read().taken, row.read().done) == ([], [], 1, 1)


def test_a_repeated_acknowledgement_ends_a_message_once_and_what_was_never_started_takes_no_slot(child, row):
    unstarted = child.take("b", 6)
    child.slots.before_send_acks(child.broker, unstarted)
    child.ack(unstarted)
    none = (row.read().taken, row.read().done)
    held = child.start("a", 5)

    child.ack(held)
    child.ack(held)

    assert (none, row.read().done, row.read().busy) == ((0, 0), 1, 0)


def test_a_job_is_asked_to_stop_if_the_supervisor_says_so_of_the_message_that_runs(child, row):
    first, _ = child.start("first", 7), child.start("second", 8)

    row.request_stop(row.running()[0])

    assert [child.slots.is_to_stop(id_) for id_ in ("first", "second", "nobody")] == [True, False, False]
    child.ack(first)
    assert not child.slots.is_to_stop("first")


def test_nothing_starts_while_the_lease_may_have_lapsed(child, row):
    row.lease(time.monotonic() - 1)
    thread = threading.Thread(target=child.start, args=("a", 5))

    thread.start()
    thread.join(0.2)
    taken = row.read().taken
    row.lease(time.monotonic() + 60)
    thread.join(30)

    assert (taken, row.read().taken) == (0, 1)


def test_what_waits_for_a_lease_is_left_to_the_supervisor_by_a_child_that_drains(child, row):
    row.lease(time.monotonic() - 1)
    held = child.take("a", 5)
    child.broker.draining = True

    with pytest.raises(SkipMessage):
        child.process(held)

    assert held.moved
    assert (row.read().taken, outcome_of(held).kind) == (0, "deferred")


def test_a_wait_for_a_broker_is_none_of_its_limit(child, row, monkeypatch):
    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.001)
    monkeypatch.setattr("switchyard.middleware.wait_for_broker.waiting", child.slots.without_limit)
    message = child.start("waits", 1)
    [before] = row.running()
    meanwhile = []

    def act() -> str:
        meanwhile.append(row.running()[0].limit_ns)
        if len(meanwhile) < 3:
            raise BrokerUnavailable("move", "connection refused")
        return "moved"

    assert retry_until_available(message, "retry", act) == "moved"
    [after] = row.running()
    assert meanwhile == [0, 0, 0]
    assert after.limit_ns == before.limit_ns > 0
    assert after.start_ns > before.start_ns, "it begins anew"


@pytest.mark.parametrize("moment", ["before_send_acks", "before_nack"])
def test_the_end_of_a_message_is_none_of_its_limit_nor_restarts_it(child, row, moment):
    getattr(child.slots, moment)(child.broker, child.start("ended", 1))
    limits = [ran.limit_ns for ran in row.running()]

    with child.slots.without_limit("ended"):
        pass

    assert limits == [ran.limit_ns for ran in row.running()] == [0]


def test_a_limit_does_not_begin_again_for_a_message_that_is_worked_off(child, row):
    held = child.start("ended", 1)

    with child.slots.without_limit("ended"):
        child.ack(held)
        child.start("next", 2)
        [started] = row.running()

    assert row.running() == [started]


def test_who_waits_finds_its_own_clock_though_its_id_is_anothers_by_then(child, row):
    child.start("again", 1)

    with child.slots.without_limit("again"):
        child.start("again", 2, "work-retry")
        stopped = {ran.token for ran in row.running() if not ran.limit_ns}

    assert stopped == {1}
    assert all(ran.limit_ns for ran in row.running())


MB = 1_000_000
LIMIT = 100 * MB + REST_BYTES


class Scales:
    """Memory size of a child, set by a test."""

    def __init__(self) -> None:
        self.size = self.peak = 60 * MB
        self.reserved = 0

    def __call__(self) -> tuple[int, int]:
        return self.size, self.size + self.reserved

    def grow(self, kept: int, meanwhile: int = 0) -> None:
        """Let a task take so much, and keep some of it."""
        self.peak = max(self.peak, self.size + kept + meanwhile)
        self.size += kept


class Draining(StubBroker):
    draining = False

    def drain(self) -> None:
        self.draining = True


@pytest.fixture
def weight(monkeypatch: pytest.MonkeyPatch) -> Scales:
    found = Scales()
    monkeypatch.setattr(slot_tracking, "memory_meter", lambda: found)
    monkeypatch.setattr(slot_tracking, "_peak_bytes", lambda: found.peak)
    return found


def run(under: MemoryGuard, broker: Any, weight: Scales, kept: int, meanwhile: int = 0) -> MessageProxy | None:
    """Run a message that takes so much; return it if it was let."""
    held = MessageProxy(Message("work", "job", (), {}, {}))
    try:
        under.before_process_message(broker, held)
    except SkipMessage:
        assert outcome_of(held).kind == "deferred"
        return None
    weight.grow(kept, meanwhile)
    under.after_process_message(broker, held)
    return held


def test_a_leak_leaves_room_for_what_fetches_and_records(weight, row):
    back: list[MessageProxy] = []
    under, broker = MemoryGuard(row, LIMIT, release=back.append), Draining()

    ran = [bool(run(under, broker, weight, 5 * MB)) for _ in range(12)]

    assert (weight.size, ran) == (100 * MB, [True] * 8 + [False] * 4)
    assert (row.full, row.lacks_memory, broker.draining, len(back)) == (True, True, True, 4)


def test_what_a_task_takes_for_a_while_is_kept_free_for_the_next(weight, row):
    under, broker = MemoryGuard(row, LIMIT, release=lambda message: None), Draining()

    ran = [bool(run(under, broker, weight, MB, meanwhile=30 * MB)) for _ in range(12)]

    assert ran.count(True) == 10  # the eleventh could come to 60 + 10 + 31
    assert weight.peak <= 100 * MB


def test_the_first_message_starts_whatever_the_child_weighs(weight, row):
    under, broker = MemoryGuard(row, MB, release=lambda message: None), Draining()

    assert run(under, broker, weight, 0)
    assert not run(under, broker, weight, 0)


@pytest.mark.parametrize(("limit_mb", "over"), [(59, True), (60, False)])
def test_a_child_is_over_its_limit_by_resident_memory(weight, row, limit_mb, over):
    weight.reserved = 100 * MB

    assert MemoryGuard(row, limit_mb * MB, release=lambda message: None).over_limit is over


def test_the_scales_see_what_is_taken():
    weigh = memory_meter()
    before = weigh()

    # From the kernel: an allocator may have something left that others gave back.
    with mmap.mmap(-1, 20 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken.write(b"x" * len(taken))
        after = weigh()
        size = len(taken)

    assert all(size / 2 < now - then < 3 * size for then, now in zip(before, after, strict=True))


def test_allocations_count_where_limited(weight, row, monkeypatch):
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(slot_tracking.resource, "setrlimit", lambda what, limit: limits.append(limit))
    under, broker = MemoryGuard(row, LIMIT, release=lambda message: None), Draining()
    weight.reserved = 40 * MB
    under.limit_allocations()

    weight.reserved += 30 * MB  # a thread's stack
    ran = [bool(run(under, broker, weight, 5 * MB)) for _ in range(12)]

    assert (limits[0][0], ran.count(True)) == (LIMIT + 40 * MB, 2)


STARTED = 100 * 2**20


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a child that begins now: its size and the time are set by ``at``."""
    watch: Any = object.__new__(ChildHygiene)
    watch._first_bytes = watch._largest_bytes = STARTED
    watch._began_s, grown = 0.0, MagicMock()
    actor = SimpleNamespace(queue_name="default", actor_name="sync")
    watch._broker, watch._metrics = SimpleNamespace(actors={"sync": actor}), SimpleNamespace(grown=grown)

    def at(now_s: float, size: int) -> int:
        monkeypatch.setitem(hygiene.CLOCKS, "monotonic", lambda: now_s)
        monkeypatch.setattr(hygiene, "resident_bytes", lambda pid: STARTED + size)
        watch._note_growth({"sync"})
        return sum(call.args[0] for call in grown.__getitem__.return_value.inc.call_args_list)

    return at


def test_what_a_child_loads_with_its_first_jobs_is_no_growth(growing):
    assert [growing(1.0, 2**20), growing(2.0, LOADED_BYTES - 1), growing(LOADS_S, LOADED_BYTES - 1)] == [0, 0, 0]


def test_what_comes_later_or_is_more_is_growth(growing):
    assert growing(1.0, LOADED_BYTES + 2**20) == LOADED_BYTES + 2**20
    assert growing(LOADS_S + 1, LOADED_BYTES + 3 * 2**20) == LOADED_BYTES + 3 * 2**20
