"""Messages whose supervisor and worker ended together, on the server: marked, counted while they ran alone, cleared."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Sequence

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.queue import dead_moves
from switchyard.broker.queue.dead_moves import StoredLetter
from switchyard.broker.queue.operations import CRASH_WINDOW_MS, Entry, Grant, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script

NUMBERS = itertools.count()
HOUR_MS = 3_600_000


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
    """A queue family of this test's own, with eight messages."""
    family = QueueOperations(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}").queue("work"))
    family.enqueue([Entry(name, b"{}") for name in "abcdefgh"])
    return family


def grants(family: QueueOperations, lane: str, count: int, *, work: str = "") -> list[Grant]:
    """Return what a new owner fetches, whose lease expires at once."""
    owner = f"{next(NUMBERS)}/{lane}"
    family.join(owner, work=work)
    found = family.fetch(owner, count, request=1).grants
    family.renew([owner], lease_ms=-1)
    return found


def lapse(family: QueueOperations, found: Sequence[Grant]) -> list[str]:
    """Sweep the owner of what was fetched, and return the suspects."""
    reclaimed = family.reclaim(found[0].lease.owner, only_lapsed=True)
    assert reclaimed is not None
    assert reclaimed.returned == len(found)
    return sorted(suspect.id for suspect in reclaimed.suspects)


def lapses(family: QueueOperations) -> dict[str, tuple[str, ...] | None]:
    """Return id -> hosts of the lapses that are counted, as the next owner is told."""
    found = grants(family, "live", 8)
    family.release(found[0].lease.owner, [grant.lease for grant in found])
    return {
        str(grant.lease.id, "ascii"): grant.lapses and tuple(lapse.partition("@")[2] for lapse in grant.lapses)
        for grant in found
    }


def test_a_lapse_marks_the_oldest_leases_up_to_the_slots_and_what_was_reported(family: QueueOperations) -> None:
    held = grants(family, "live", 6, work="2 0 host-1")
    family.renew([held[0].lease.owner])
    family.report({held[0].lease.owner: "2 0 host-1\ne\ngone"})
    family.renew([held[0].lease.owner], lease_ms=-1)

    suspects = lapse(family, held)

    assert suspects == ["a", "b", "e"]
    assert lapses(family) == {**dict.fromkeys("abe", ()), **dict.fromkeys("cdfgh")}
    assert family.calls.command("HLEN", family.keys.running) == 0


def test_the_stock_of_a_quiet_child_and_the_messages_of_an_owner_without_a_record_are_not_marked(
    family: QueueOperations,
) -> None:
    assert lapse(family, grants(family, "live", 4, work="0 0 host-1")) == []
    assert lapse(family, grants(family, "live", 4)) == []


def test_a_supervisor_that_reclaims_a_child_makes_no_lapse_suspect(family: QueueOperations) -> None:
    held = grants(family, "live", 4, work="2 0 host-1")

    family.reclaim(held[0].lease.owner, running=["a"], cause="SIGSEGV")

    assert set(lapses(family).values()) == {None}


def test_only_a_lapse_of_a_suspect_that_ran_alone_is_counted_with_its_host(family: QueueOperations) -> None:
    for work in ("1 1 host-1", "1 0 host-2", "1 1 host-3", "1 1 host-4"):
        lapse(family, grants(family, "live", 1, work=work))

    assert lapses(family)["a"] == ("host-3", "host-4")


def test_a_sweep_that_is_repeated_counts_once(family: QueueOperations) -> None:
    lapse(family, grants(family, "live", 1, work="1 1 host-1"))
    held = grants(family, "live", 1, work="1 1 host-2")
    lapse(family, held)

    assert family.reclaim(held[0].lease.owner, only_lapsed=True) is None
    assert lapses(family)["a"] == ("host-2",)


@pytest.mark.parametrize("how", ["success", "dead letter", "requeued"])
def test_an_end_clears_the_mark(family: QueueOperations, how: str) -> None:
    lapse(family, grants(family, "live", 1, work="1 1 host-1"))
    [held] = grants(family, "live", 1)
    if how == "success":
        family.ack(held.lease.owner, [held.lease])
    else:
        family.dead_letter(held.lease, b"{}")
    if how == "requeued":
        dead_moves.requeue(family, [StoredLetter("a", b"{}", None)], {"a": (b"{}", 2)}, nonce="n")
        assert lapses(family)["a"] is None

    assert family.calls.command("HGET", family.keys.notes, "crash:a") is None


def test_a_move_and_an_isolation_keep_the_mark(family: QueueOperations) -> None:
    lapse(family, grants(family, "live", 1, work="1 1 host-1"))
    lapse(family, grants(family, "live", 1, work="1 1 host-2"))
    [held] = grants(family, "live", 1)
    family.move(held.lease, move="divert", lane="retry", body=b"{}", delay_ms=0)
    [moved] = grants(family, "retry", 1)
    family.isolate(moved.lease)

    [found] = grants(family, "alone", 1)

    assert (found.lapses or ("",))[0].endswith("@host-2")
    assert (found.crashes, found.cause) == (0, "alone")


def test_the_backlog_shows_suspects_that_wait_to_run_alone_and_the_pools_that_run_them(family: QueueOperations) -> None:
    lapse(family, grants(family, "live", 2, work="2 1 host-1"))
    for held in grants(family, "live", 3):
        family.isolate(held.lease)
    family.join("pool/alone", work="1 1 host-1")

    backlog = family.calls.call(script("backlog"), *family.backlog_call())

    assert backlog == [5, 0, 3, 0, 2, 1]


def note(family: QueueOperations, ago_ms: Sequence[int]) -> None:
    """Write a note of crashes so long ago."""
    times = [str(int(time.time() * 1000) - ms) for ms in ago_ms]
    text = f"{len(times)} {times[0]} SIGSEGV\nlast words\n@{','.join(times)} -"
    family.calls.command("HSET", family.keys.notes, "crash:a", text)


@pytest.mark.parametrize(
    ("ago_h", "crashes"),
    [
        ([73, 71], 2),  # the window slides: the younger one counts still
        ([71, 1], 3),
        ([80, 73], 1),
    ],
)
def test_a_crash_counts_for_72_hours_from_its_own_time(family: QueueOperations, ago_h: list[int], crashes: int) -> None:
    assert CRASH_WINDOW_MS == 72 * HOUR_MS
    note(family, [hours * HOUR_MS for hours in ago_h])
    [held] = grants(family, "live", 1)
    assert (held.crashes, held.cause) == (2, "SIGSEGV\nlast words")

    reclaimed = family.reclaim(held.lease.owner, running=["a"], cause="SIGKILL, pid 7")

    assert reclaimed is not None
    assert [suspect.crashes for suspect in reclaimed.suspects] == [crashes]


def test_a_lapse_counts_for_72_hours(family: QueueOperations) -> None:
    now_ms = int(time.time() * 1000)
    old = ",".join(f"{now_ms - hours * HOUR_MS}@host-{hours}" for hours in (73, 71))
    family.calls.command("HSET", family.keys.notes, "crash:a", f"0 {now_ms} alone\n@- {old}")

    lapse(family, grants(family, "live", 1, work="1 1 host-now"))

    assert lapses(family)["a"] == ("host-71", "host-now")
