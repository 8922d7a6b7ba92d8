"""The shared table and the middleware that fills it in: what a child writes is what its supervisor reads."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from dramatiq.middleware import Middleware, SkipMessage

from apps.platform.workers import table
from apps.platform.workers.slots import Slots, install
from apps.platform.workers.table import RING, ChildState, Finished, Row, Table
from broker.errors import BrokerUnavailable
from middleware.away import hold
from middleware.outcomes import outcome_of
from tests.factories.yards import small_yard

LANES = ("work", "work-retry")


class Skips(Middleware):
    """Lets nothing run."""

    def before_process_message(self, broker: Any, message: Any) -> None:
        raise SkipMessage("not now")


@dataclass
class Held:
    """What a message is held by."""

    id: bytes
    token: bytes


def message(id_: str, token: int, lane: str = "work") -> MessageProxy:
    """Return a message that is held under a token."""
    proxy = MessageProxy(Message(lane, "job", (), {}, {}, id_, 0))
    proxy.lease = Held(id_.encode(), b"%d" % token)  # type: ignore[attr-defined]
    return proxy


def leased(row: Row, seconds: float = 60.0) -> Row:
    """Return a row whose child has its leases for so long."""
    row.lease(time.monotonic() + seconds)
    return row


@pytest.fixture
def row() -> Row:
    """A row for two slots, of a child that has its leases."""
    return leased(Table.create(1, 2).rows[0])


@pytest.fixture
def slots(row: Row) -> Slots:
    """The middleware that fills it in."""
    return Slots(row, small_yard(), LANES, 2)


def test_a_forked_child_writes_and_its_parent_reads() -> None:
    table = Table.create(3, 2)
    pid = os.fork()
    if pid == 0:
        table.rows[1].set_ready()
        table.rows[1].start(1, 0, b"a", 7, 5_000)
        os._exit(0)

    os.waitpid(pid, 0)

    state = table.rows[1].read()
    assert (state.ready, state.taken, state.done, state.busy) == (True, 1, 0, 1)
    [running] = table.rows[1].running()
    assert (running.id, running.token, running.lane, running.limit_ns) == (b"a", 7, 0, 5_000)
    assert running.over_at_ns == running.start_ns + 5_000
    assert table.rows[0].read() == table.rows[2].read() == ChildState(False, 0, 0, 0, 0)


def test_a_table_is_found_again_by_its_descriptor() -> None:
    table = Table.create(2, 4)

    row = Table(table.fd, 2, 4).rows[1]
    row.finish(1, b"a", 3)
    row.write_finished(lambda: None)

    assert table.rows[1].finished() == [Finished(1, b"a", 3)]


def test_a_row_is_cleared_for_the_next_child(row: Row) -> None:
    row.set_ready()
    row.set_full()
    row.retire()
    row.log("said\n")
    row.start(0, 0, b"a", 1, 0)
    row.finish(0, b"b", 2)

    row.clear()

    assert row.read() == ChildState(False, 0, 0, 0, 0)
    assert (row.running(), row.finished(), row.logged()) == ([], [], [])
    assert (row.leased, row.full, row.retired) == (False, False, False)


def test_a_slot_is_busy_until_its_message_is_acknowledged(row: Row, slots: Slots) -> None:
    held = message("a", 5, "work-retry")
    slots.before_process_message(StubBroker(), held)
    runs = row.running()
    slots.after_process_message(StubBroker(), held)
    ended = row.running()
    at_work = slots.running

    slots.after_ack(StubBroker(), held)
    row.write_finished(lambda: None)

    assert [(found.id, found.lane, found.token) for found in runs] == [(b"a", 1, 5)]
    assert runs[0].over_at_ns is not None
    assert [found.over_at_ns for found in ended] == [None]
    assert at_work == []
    assert row.running() == []
    assert row.finished() == [Finished(1, b"a", 5)]
    assert row.read().done == 1


def test_what_was_moved_is_not_finished(row: Row, slots: Slots) -> None:
    held = message("a", 5)
    slots.before_process_message(StubBroker(), held)
    held.moved = True  # type: ignore[attr-defined]

    slots.after_ack(StubBroker(), held)

    assert (row.running(), row.finished()) == ([], [])


def test_an_end_that_an_interrupt_swallowed_is_counted_with_the_acknowledgement(row: Row, slots: Slots) -> None:
    held = message("a", 5)
    slots.before_process_message(StubBroker(), held)

    slots.after_ack(StubBroker(), held)

    assert (row.read().done, row.read().busy) == (1, 0)


def test_the_ring_remembers_the_last_ones(row: Row) -> None:
    for token in range(RING + 3):
        row.finish(0, b"m%d" % token, token)
    row.write_finished(lambda: None)

    assert {found.token for found in row.finished()} == set(range(3, RING + 3))


def test_what_is_not_written_down_of_a_message_keeps_it_from_being_finished(row: Row) -> None:
    row.finish(0, b"a", 1)
    row.write_finished(lambda: row.finish(0, b"b", 2))
    row.finish(0, b"c", 3)

    with pytest.raises(OSError, match="away"):
        row.write_finished(failing)

    assert row.finished() == [Finished(0, b"a", 1)]


def failing() -> None:
    """Write nothing."""
    raise OSError("the server is away")


def test_an_id_that_is_too_long_to_be_told_apart_is_not_told(row: Row) -> None:
    row.start(0, 0, b"x" * 201, 1, 0)

    assert row.running() == []


@pytest.mark.parametrize(("middleware", "failing"), [((), False), ((), True), ((Skips(),), False)])
def test_slots_count_what_succeeds_fails_and_is_skipped(middleware: tuple[Middleware, ...], failing: bool) -> None:
    broker = StubBroker(middleware=list(middleware))
    row = leased(Table.create(1, 1).rows[0])
    seen: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        seen.append(row.read().busy)
        if failing:
            raise ValueError("as asked")

    slots = install(broker, Slots(row, small_yard(), LANES, 1))
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    job.send()
    broker.join("work", fail_fast=False)
    worker.join()
    worker.stop()

    state = row.read()
    assert (state.taken, state.done, state.busy) == (1, 1, 0)
    assert seen == ([] if middleware else [1])
    assert (slots.running, row.running()) == ([], [])
    assert broker.middleware[0] is slots


def test_nothing_starts_while_the_lease_may_have_lapsed(row: Row, slots: Slots) -> None:
    row.lease(time.monotonic() - 1)
    thread = threading.Thread(target=slots.before_process_message, args=(StubBroker(), message("a", 5)))

    thread.start()
    thread.join(0.2)
    taken = row.read().taken
    leased(row)
    thread.join(5)

    assert taken == 0
    assert row.read().taken == 1


def test_what_waits_for_a_lease_is_left_to_the_supervisor_by_a_child_that_drains(row: Row, slots: Slots) -> None:
    row.lease(time.monotonic() - 1)
    held, broker = message("a", 5), StubBroker()
    broker.draining = True  # type: ignore[attr-defined]

    with pytest.raises(SkipMessage):
        slots.before_process_message(broker, held)

    assert held.moved
    assert (row.read().taken, outcome_of(held).kind) == (0, "deferred")


@pytest.mark.parametrize("lines", [3, 40, 400])
def test_a_row_keeps_the_last_lines_that_its_child_logged(row: Row, lines: int) -> None:
    said = [f"line {number} " + "x" * (number % 90) for number in range(lines)]

    for line in said:
        row.log(f"{line}\n")

    kept = row.logged()
    assert kept == said[-len(kept) :]
    assert len(kept) >= min(lines, 30)


def test_a_line_longer_than_a_row_keeps_is_cut(row: Row) -> None:
    row.log("x" * 10_000)
    row.log("end\n")

    assert row.logged() == []
    row.log("after\n")
    assert row.logged() == ["after"]


def test_what_has_lost_its_beginning_is_no_line(row: Row) -> None:
    row.log("password=" + "x" * 5_000 + "\n")

    assert row.logged() == []
    row.log("after\n")
    assert row.logged() == ["after"]


def test_progress_is_the_first_sign_of_life_after_a_message_started_or_ended(row: Row) -> None:
    row.beat()
    idle_ns = row.read().progress_ns
    row.start(0, 0, b"a", 1, 0)
    row.beat()
    started_ns = row.read().progress_ns
    row.beat()
    still_ns = row.read().progress_ns
    row.end(0)
    row.beat()

    assert idle_ns == 0
    assert 0 < started_ns == still_ns < row.read().progress_ns == row.read().beat_ns


def test_slots_are_counted_by_several_threads_at_once() -> None:
    row = Table.create(1, 8).rows[0]

    def run(slot: int) -> None:
        for token in range(2_000):
            row.start(slot, 0, b"a", token, 0)
            row.end(slot)
            row.free(slot)

    threads = [threading.Thread(target=run, args=(slot,)) for slot in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (row.read().taken, row.read().done, row.read().busy) == (16_000, 16_000, 0)


def test_time_that_a_job_waits_for_the_broker_is_none_of_its_limit(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(row, small_yard(), LANES, slots=2)
    monkeypatch.setattr("middleware.away.PAUSE_S", 0.001)
    monkeypatch.setattr("middleware.away.waiting", slots.without_limit)
    held = message("waits", 1)
    slots.before_process_message(StubBroker(), held)
    [before] = row.running()
    meanwhile = []

    def act() -> str:
        meanwhile.append(row.running()[0].limit_ns)
        if len(meanwhile) < 3:
            raise BrokerUnavailable("move", "connection refused")
        return "moved"

    assert hold(act, job_id="waits", what="retry") == "moved"
    [after] = row.running()
    assert meanwhile == [0, 0, 0]
    assert after.limit_ns == before.limit_ns > 0
    assert after.start_ns > before.start_ns, "it begins anew"


def test_a_limit_does_not_begin_again_for_a_task_that_has_ended(row: Row) -> None:
    slots = Slots(row, small_yard(), LANES, slots=2)
    held = message("ended", 1)
    slots.before_process_message(StubBroker(), held)

    with slots.without_limit("ended"):
        slots.after_process_message(StubBroker(), held)

    assert [ran.limit_ns for ran in row.running()] == [0]


def test_a_job_that_is_not_here_may_wait_as_well(row: Row) -> None:
    with Slots(row, small_yard(), LANES, slots=2).without_limit("sent from a command"):
        assert row.running() == []


def test_a_slot_that_is_filled_anew_while_it_is_read_is_never_seen_half_written(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    row.start(0, 0, b"before", 1, 60_000_000_000)
    layout = table._RUNNING

    class Torn:
        """Reads the first time what is there in the middle of a write, which then goes on."""

        torn = False

        def unpack_from(self, memory: memoryview, at: int) -> tuple[object, ...]:
            if self.torn:
                return layout.unpack_from(memory, at)
            self.torn = True
            row.free(0)
            layout.pack_into(memory, at, 2, 0, 3_000_000_000, 0, 5, b"after", 0)
            seen = layout.unpack_from(memory, at)
            row.start(0, 0, b"after", 2, 3_000_000_000)
            return seen

        def pack_into(self, *values: object) -> None:
            layout.pack_into(*values)

    monkeypatch.setattr(table, "_RUNNING", Torn())

    assert row.running() == []
    assert [(ran.id, ran.start_ns > 0) for ran in row.running()] == [(b"after", True)]
