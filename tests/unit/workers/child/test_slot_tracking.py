"""The middleware with which a child fills in its row: what it takes, runs and works off."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis
from dramatiq.message import Message
from dramatiq.middleware import SkipMessage

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Lease
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.outcomes import outcome_of
from switchyard.middleware.wait_for_broker import retry_until_available
from switchyard.workers.child.slot_tracking import SlotTracking
from switchyard.workers.shared.child_table import ChildRow, ChildTable
from tests.factories.yards import small_yard

LANES = ("work", "work-retry")


@pytest.fixture
def row() -> ChildRow:
    """A row for two slots, of a child that has its leases."""
    found = ChildTable.create(1, 2).rows[0]
    found.lease(time.monotonic() + 60)
    return found


@pytest.fixture
def broker() -> RedisBroker:
    """A broker that asks no server."""
    return RedisBroker(redis.Redis(), Keys(), middleware=[])


@pytest.fixture
def slots(row: ChildRow, broker: RedisBroker) -> SlotTracking:
    """The middleware that fills it in."""
    return SlotTracking(broker, row, small_yard(), LANES)


def hand_out(broker: RedisBroker, id_: str, token: int, lane: str = "work") -> HeldMessage:
    """Return a message that is held under a token, as a consumer hands it out."""
    message: Message[Any] = Message(lane, "job", (), {}, {}, id_, 0)
    broker.declare_queue(lane)
    family, kind = broker.lane(lane)
    held = HeldMessage(message, Lease(f"child/{kind}", id_.encode(), b"%d" % token), family)
    broker.in_flight[id_] = held
    return held


def test_a_slot_is_busy_until_its_message_is_acknowledged(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    held = hand_out(broker, "a", 5, "work-retry")
    slots.before_process_message(broker, held)
    runs, at_work = row.running(), slots.running

    slots.after_ack(broker, held)
    row.confirm_flush(row.last_end())

    assert [(found.id, found.lane, found.token) for found in runs] == [(b"a", 1, 5)]
    assert runs[0].over_at_ns is not None
    assert at_work == [held]
    assert (slots.running, row.running()) == ([], [])
    assert [(found.id, found.lane, found.token) for found in row.finished()] == [(b"a", 1, 5)]
    assert row.read().done == 1


def test_a_quiet_child_starts_nothing_and_releases_what_it_fetched(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    released: list[Any] = []
    slots.release = released.append
    held = hand_out(broker, "a", 5)
    row.quiet = True

    with pytest.raises(SkipMessage):
        slots.before_process_message(broker, held)

    assert released == [held]
    assert (row.running(), outcome_of(held).kind) == ([], "deferred")


def test_a_child_that_runs_beside_others_leaves_a_lapse_suspect_and_ends(broker: RedisBroker, row: ChildRow) -> None:
    slots = SlotTracking(broker, row, small_yard(), LANES, quiet_for_suspects=True)
    crashed, suspect = hand_out(broker, "crashed", 5), hand_out(broker, "suspect", 6)
    suspect.lapses = ()
    slots.before_process_message(broker, crashed)

    with pytest.raises(SkipMessage):
        slots.before_process_message(broker, suspect)

    assert row.quiet
    assert [ran.id for ran in row.running()] == [b"crashed"]


@pytest.mark.parametrize("side", ["ack", "nack"])
def test_what_was_moved_or_buried_is_not_finished(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking, side: str
) -> None:
    held = hand_out(broker, "a", 5)
    slots.before_process_message(broker, held)
    held.moved = True

    {"ack": slots.after_ack, "nack": slots.after_nack}[side](broker, held)
    row.confirm_flush(row.last_end())

    assert (row.running(), row.finished()) == ([], [])
    assert (row.read().taken, row.read().done) == (1, 1)


def test_an_acknowledgement_that_dramatiq_repeats_ends_a_message_once(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    held = hand_out(broker, "a", 5)
    slots.before_process_message(broker, held)

    slots.after_ack(broker, held)
    slots.after_ack(broker, held)

    assert (row.read().done, row.read().busy) == (1, 0)


def test_what_was_never_started_takes_no_slot(broker: RedisBroker, row: ChildRow, slots: SlotTracking) -> None:
    held = hand_out(broker, "a", 5)

    slots.before_send_acks(broker, held)
    slots.after_ack(broker, held)

    assert (row.read().taken, row.read().done) == (0, 0)


def test_a_job_was_asked_to_stop_if_the_supervisor_says_so_of_the_message_that_runs(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    first, second = hand_out(broker, "first", 7), hand_out(broker, "second", 8)
    for held in (first, second):
        slots.before_process_message(broker, held)

    row.request_stop(row.running()[0])

    assert [slots.is_to_stop(id_) for id_ in ("first", "second", "nobody")] == [True, False, False]
    slots.after_ack(broker, first)
    assert not slots.is_to_stop("first")


def test_nothing_starts_while_the_lease_may_have_lapsed(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    row.lease(time.monotonic() - 1)
    held = hand_out(broker, "a", 5)
    thread = threading.Thread(target=slots.before_process_message, args=(broker, held))

    thread.start()
    thread.join(0.2)
    taken = row.read().taken
    row.lease(time.monotonic() + 60)
    thread.join(30)

    assert taken == 0
    assert row.read().taken == 1


def test_what_waits_for_a_lease_is_left_to_the_supervisor_by_a_child_that_drains(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    row.lease(time.monotonic() - 1)
    held = hand_out(broker, "a", 5)
    broker.draining = True

    with pytest.raises(SkipMessage):
        slots.before_process_message(broker, held)

    assert held.moved
    assert (row.read().taken, outcome_of(held).kind) == (0, "deferred")


def test_time_that_a_job_waits_for_the_broker_is_none_of_its_limit(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.001)
    monkeypatch.setattr("switchyard.middleware.wait_for_broker.waiting", slots.without_limit)
    message = hand_out(broker, "waits", 1)
    slots.before_process_message(broker, message)
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
def test_the_end_of_a_message_is_none_of_its_limit(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking, moment: str
) -> None:
    held = hand_out(broker, "ended", 1)
    slots.before_process_message(broker, held)

    getattr(slots, moment)(broker, held)

    assert [ran.limit_ns for ran in row.running()] == [0]


def test_a_limit_does_not_begin_again_for_a_message_that_is_worked_off(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    held = hand_out(broker, "ended", 1)
    slots.before_process_message(broker, held)

    with slots.without_limit("ended"):
        slots.after_ack(broker, held)
        slots.before_process_message(broker, hand_out(broker, "next", 2))
        [started] = row.running()

    assert row.running() == [started]


def test_a_limit_does_not_begin_again_for_a_message_that_waits_to_be_buried(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    held = hand_out(broker, "dead", 1)
    slots.before_process_message(broker, held)
    slots.before_nack(broker, held)

    with slots.without_limit("dead"):
        pass

    assert [ran.limit_ns for ran in row.running()] == [0]


def test_who_waits_finds_its_own_clock_though_its_id_is_anothers_by_then(
    broker: RedisBroker, row: ChildRow, slots: SlotTracking
) -> None:
    slots.before_process_message(broker, hand_out(broker, "again", 1))

    with slots.without_limit("again"):
        slots.before_process_message(broker, hand_out(broker, "again", 2, "work-retry"))
        stopped = {ran.token for ran in row.running() if not ran.limit_ns}

    assert stopped == {1}
    assert all(ran.limit_ns for ran in row.running())
