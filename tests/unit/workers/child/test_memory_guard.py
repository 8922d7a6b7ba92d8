"""Memory of a child: whether one more message fits, and which actors its growth is put down to."""

from __future__ import annotations

import mmap
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from dramatiq.middleware import SkipMessage

from switchyard.middleware.outcomes import outcome_of
from switchyard.workers.child import hygiene, slot_tracking
from switchyard.workers.child.hygiene import LOADED_BYTES, LOADS_S, ChildHygiene
from switchyard.workers.child.slot_tracking import REST_BYTES, MemoryGuard, memory_meter
from switchyard.workers.shared.child_table import ChildRow, ChildTable

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
    """Notes that it was told to drain."""

    draining = False

    def drain(self) -> None:
        self.draining = True


@pytest.fixture
def weight(monkeypatch: pytest.MonkeyPatch) -> Scales:
    """The child's weight."""
    found = Scales()
    monkeypatch.setattr(slot_tracking, "memory_meter", lambda: found)
    monkeypatch.setattr(slot_tracking, "_peak_bytes", lambda: found.peak)
    return found


@pytest.fixture
def row() -> ChildRow:
    """Of one slot."""
    return ChildTable.create(1, 1).rows[0]


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


def test_a_leak_leaves_room_for_what_fetches_and_records(weight: Scales, row: ChildRow) -> None:
    back: list[MessageProxy] = []
    under, broker = MemoryGuard(row, LIMIT, release=back.append), Draining()

    ran = [bool(run(under, broker, weight, 5 * MB)) for _ in range(12)]

    assert weight.size == 100 * MB
    assert ran == [True] * 8 + [False] * 4
    assert (row.full, row.lacks_memory, broker.draining, len(back)) == (True, True, True, 4)


def test_what_a_task_takes_for_a_while_is_kept_free_for_the_next(weight: Scales, row: ChildRow) -> None:
    under, broker = MemoryGuard(row, LIMIT, release=lambda message: None), Draining()

    ran = [bool(run(under, broker, weight, MB, meanwhile=30 * MB)) for _ in range(12)]

    assert ran.count(True) == 10  # the eleventh could come to 60 + 10 + 31
    assert weight.peak <= 100 * MB


def test_the_first_message_starts_whatever_the_child_weighs(weight: Scales, row: ChildRow) -> None:
    under, broker = MemoryGuard(row, MB, release=lambda message: None), Draining()

    assert run(under, broker, weight, 0)
    assert not run(under, broker, weight, 0)


@pytest.mark.parametrize(("limit_mb", "over"), [(59, True), (60, False)])
def test_a_child_is_over_its_limit_by_its_resident_memory(
    weight: Scales, row: ChildRow, limit_mb: int, over: bool
) -> None:
    weight.reserved = 100 * MB

    assert MemoryGuard(row, limit_mb * MB, release=lambda message: None).over_limit is over


def test_the_scales_see_what_is_taken() -> None:
    weigh = memory_meter()
    before = weigh()

    # From the kernel: an allocator may have something left that others gave back.
    with mmap.mmap(-1, 20 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken.write(b"x" * len(taken))
        after = weigh()
        size = len(taken)

    assert all(size / 2 < now - then < 3 * size for then, now in zip(before, after, strict=True))


def test_what_is_allocated_counts_where_it_is_limited(
    weight: Scales, row: ChildRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(slot_tracking.resource, "setrlimit", lambda what, limit: limits.append(limit))
    under, broker = MemoryGuard(row, LIMIT, release=lambda message: None), Draining()
    weight.reserved = 40 * MB
    under.limit_allocations()

    weight.reserved += 30 * MB  # a thread's stack
    ran = [bool(run(under, broker, weight, 5 * MB)) for _ in range(12)]

    assert limits[0][0] == LIMIT + 40 * MB
    assert ran.count(True) == 2


STARTED = 100 * 2**20


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
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


def test_what_it_loads_with_its_first_jobs_is_no_growth(child: Any) -> None:
    assert [child(1.0, 2**20), child(2.0, LOADED_BYTES - 1), child(LOADS_S, LOADED_BYTES - 1)] == [0, 0, 0]


def test_what_comes_later_or_is_more_is_growth(child: Any) -> None:
    assert child(1.0, LOADED_BYTES + 2**20) == LOADED_BYTES + 2**20
    assert child(LOADS_S + 1, LOADED_BYTES + 3 * 2**20) == LOADED_BYTES + 3 * 2**20
