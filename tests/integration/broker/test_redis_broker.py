"""The broker underneath: what a dead worker held comes back, or runs alone; ids; an absent server; pool reports."""

import itertools
import threading
import time
from collections.abc import Sequence
from math import inf
from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.leases import RENEW_S, SWEEP_S, TICK_S
from switchyard.broker.queue.operations import CRASH_WINDOW_MS, LEASE_MS, Entry, Grant, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores import dead_lists
from switchyard.broker.stores.dead_lists import StoredLetter
from switchyard.broker.stores.pool_reports import SILENT_KEPT_MS, PoolReport, PoolReports, SilentSupervisor
from switchyard.wiring import build_yard
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def test_a_closed_broker_keeps_no_connection(valkey, valkey_url, run_worker):
    client = connect(f"{valkey_url}?client_name=closing")
    broker = build_yard(small_yard(), client, Keys(prefix="closing"))

    def connections() -> list[str]:
        return [found["addr"] for found in valkey.client_list() if found["name"] == "closing"]

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    with run_worker(broker=broker):
        job_id = job.send().message_id
        wait_for(lambda: (record := facilities(broker).records.read(job_id)) and record.ended)
        assert connections()

    broker.close()

    wait_for(lambda: not connections())


def test_what_vanished_with_its_host_starts_again_within_20_seconds():
    assert LEASE_MS / 1000 + SWEEP_S + TICK_S <= 20
    assert RENEW_S * 3 <= LEASE_MS / 1000, "two renewals may fail"


@pytest.mark.parametrize("within_s", [inf, pytest.param(2.5, marks=pytest.mark.long)])
def test_a_server_that_is_away_is_named_within_the_profiles_time(within_s):
    broker = build_yard(small_yard(), connect("redis://127.0.0.1:1/0"), Keys("nowhere"))

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    for act in (job.send, lambda: facilities(broker).transport.requeue("work", {"any": 0}, nonce="n")):
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="SWITCHYARD_BROKER_URL") as refused:
            act()

        assert refused.value.outcome == "refused", "nothing was sent or moved, so a caller may release its claim"
        assert time.monotonic() - started < within_s


def test_an_id_that_runs_is_known_to_the_other_tasks_of_its_worker_too(broker, run_worker):
    runs: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def report(number: int) -> None:
        runs.append(number)
        entered.set()
        go_on.wait(60)

    @dramatiq.actor(broker=broker, queue_name="work")
    def send_again() -> None:
        broker.enqueue(report.message(2).copy(message_id="report-42"))

    transport = facilities(broker).transport
    with run_worker(broker=broker, threads=2):
        broker.enqueue(report.message(1).copy(message_id="report-42"))
        assert entered.wait(30)
        sent = send_again.send()
        wait_for(lambda: (found := facilities(broker).records.read(sent.message_id)) and found.state == "succeeded")
        # The record of an end is written before its acknowledgement.
        wait_for(lambda: (live := transport.stats("work").live) and (live.waiting, live.running) == (0, 1))
        go_on.set()
        wait_for(lambda: not transport.stats("work").live.running)

    assert runs == [1]


def test_what_continues_itself_runs_again_under_its_id(broker, run_worker):
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def page(number: int) -> None:
        runs.append(number)
        if number < 3:
            broker.enqueue(page.message(number + 1).copy(message_id="walk"))

    with run_worker(broker=broker):
        broker.enqueue(page.message(1).copy(message_id="walk"))
        wait_for(lambda: runs == [1, 2, 3])
        wait_for(lambda: not facilities(broker).transport.stats("work").live.running)


def test_a_pool_report_lapses_with_its_supervisor_and_one_that_cannot_be_read_hides_it_not(valkey, broker):
    pools, keys = facilities(broker).pools, broker.keys
    report = PoolReport("work", "host", 1, "threads", slots=4, busy=1, started_at=1, beat_at=2, state="up")

    pools.write(report)
    for rubbish in (b"{", b'{"pool": "of a release to come", "more": 1}'):
        valkey.set(keys.pool_report(str(rubbish)), rubbish)
        valkey.sadd(keys.pool_reports(), str(rubbish))
    assert pools.read_all() == [report]
    for key in valkey.scan_iter("*work:host:1"):
        valkey.pexpire(key, 1)

    wait_for(lambda: pools.read_all() == [])


def test_an_id_that_is_no_text_stops_no_consumer(broker, run_worker):
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        done.append(1)

    broker.client.rpush(broker.families["work"].keys.waiting("live")[1], b"\xff\xfe")
    with run_worker(broker=broker) as worker:
        job.send()
        wait_for(lambda: done)
        wait_for(lambda: facilities(broker).transport.stats("work").quarantined == 1)
        consumers = [thread.is_alive() for thread in worker.consumers.values()]

    assert all(consumers)
    assert facilities(broker).transport.unreadable("work").items[0].raw == b"\xff\xfe"


NOW = 1_800_000_000_000


def test_a_supervisor_that_starts_forgets_those_that_are_silent_for_long(valkey):
    keys = Keys()
    old, lately = "urgent:a:1", "urgent:b:2"
    beats = {old: NOW - SILENT_KEPT_MS - 1, lately: NOW - SILENT_KEPT_MS, "written by hand": 7}
    valkey.hset(keys.pool_beats(), mapping=beats)  # type: ignore[arg-type]
    found = PoolReports(RedisCalls(valkey), keys).read_beats(NOW)

    assert valkey.hkeys(keys.pool_beats()) == [lately.encode()]
    assert found == [SilentSupervisor("urgent", "b", 2, NOW - SILENT_KEPT_MS)]


@pytest.fixture
def single(family: QueueOperations) -> QueueOperations:
    family.enqueue([Entry("a", b"A")])
    return family


def grant(family: QueueOperations, owner: str) -> Grant:
    """Return what a new owner fetches, which is one message."""
    family.join(owner)
    [found] = family.fetch(owner, 5, request=1).grants
    return found


def crash(family: QueueOperations, owner: str, cause: str = "SIGSEGV") -> Grant:
    """Have a new owner fetch the message and die of it; return what it fetched."""
    found = grant(family, owner)
    family.reclaim(owner, running=["a"], cause=cause)
    return found


def test_a_crash_is_counted_with_its_cause_and_told_to_who_fetches_next(single):
    crash(single, "1/live", "SIGSEGV, pid 7")
    again = crash(single, "2/live", "SIGKILL, pid 8")

    third = grant(single, "3/live")

    assert (again.crashes, again.cause, again.cancel_requested) == (1, "SIGSEGV, pid 7", False)
    assert (third.crashes, third.cause) == (2, "SIGKILL, pid 8")


def test_a_kill_for_the_limit_is_marked_but_no_crash(single):
    crash(single, "1/live", "limit 3000 ms")

    found = grant(single, "2/live")
    assert (found.crashes, found.cause) == (0, "limit 3000 ms")


def test_what_was_moved_after_a_crash_still_runs_alone_but_has_no_limit_to_answer_for(single):
    crash(single, "1/live", "limit 3000 ms")
    held = grant(single, "2/live")

    single.move(held.lease, move="divert", lane="retry", body=b"B", delay_ms=0)

    found = grant(single, "3/retry")
    assert (found.crashes, found.cause, found.body) == (0, "alone", b"B")


def test_an_isolated_message_waits_in_its_own_lane_with_its_count_and_counts_among_the_live(single, valkey):
    crash(single, "1/live")
    held = grant(single, "2/live")

    assert [single.isolate(held.lease), single.isolate(held.lease)] == [True, True]

    single.join("3/live")
    assert single.fetch("3/live", 1, request=1).grants == []
    stats = family_stats(RedisCalls(valkey), single.keys)
    assert (stats.live.waiting, stats.live.running) == (1, 0)
    found = grant(single, "4/alone")
    assert (found.lease.id, found.crashes, found.cause, found.body) == (b"a", 1, "SIGSEGV", b"A")
    assert family_stats(RedisCalls(valkey), single.keys).live.running == 1
    assert not single.isolate(Lease("2/live", b"a", b"1"))


def test_what_runs_alone_can_be_cancelled_and_asked_to_stop(single):
    held = grant(single, "1/live")
    single.isolate(held.lease)
    crash(single, "2/alone")
    again = grant(single, "3/alone")
    single.move(again.lease, move="defer", lane="alone", body=b"A", delay_ms=60_000)

    assert administration.cancel(single, {"a": b""})["a"] == "cancelled"

    assert single.calls.command("ZCARD", single.keys.due("alone")) == 0


NUMBERS = itertools.count()
HOUR_MS = 3_600_000


@pytest.fixture
def several(family: QueueOperations) -> QueueOperations:
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
    assert reclaimed is not None and reclaimed.returned == len(found)
    return sorted(suspect.id for suspect in reclaimed.suspects)


def lapses(family: QueueOperations) -> dict[str, tuple[str, ...] | None]:
    """Return id -> hosts of the lapses that are counted, as the next owner is told."""
    found = grants(family, "live", 8)
    family.release(found[0].lease.owner, [grant.lease for grant in found])
    return {
        str(grant.lease.id, "ascii"): grant.lapses and tuple(lapse.partition("@")[2] for lapse in grant.lapses)
        for grant in found
    }


def test_a_lapse_marks_the_oldest_leases_up_to_the_slots_and_what_was_reported(several):
    held = grants(several, "live", 6, work="2 0 host-1")
    several.renew([held[0].lease.owner])
    several.report({held[0].lease.owner: "2 0 host-1\ne\ngone"})
    several.renew([held[0].lease.owner], lease_ms=-1)

    assert lapse(several, held) == ["a", "b", "e"]
    assert lapses(several) == {**dict.fromkeys("abe", ()), **dict.fromkeys("cdfgh")}
    assert several.calls.command("HLEN", several.keys.running) == 0


def test_the_stock_of_a_quiet_child_and_the_messages_of_an_owner_without_a_record_are_not_marked(several):
    assert lapse(several, grants(several, "live", 4, work="0 0 host-1")) == []
    assert lapse(several, grants(several, "live", 4)) == []


def test_a_supervisor_that_reclaims_a_child_makes_no_lapse_suspect(several):
    held = grants(several, "live", 4, work="2 0 host-1")

    several.reclaim(held[0].lease.owner, running=["a"], cause="SIGSEGV")

    assert set(lapses(several).values()) == {None}


def test_only_a_lapse_of_a_suspect_that_ran_alone_is_counted_with_its_host(several):
    for work in ("1 1 host-1", "1 0 host-2", "1 1 host-3", "1 1 host-4"):
        lapse(several, grants(several, "live", 1, work=work))

    assert lapses(several)["a"] == ("host-3", "host-4")


def test_a_sweep_that_is_repeated_counts_once(several):
    lapse(several, grants(several, "live", 1, work="1 1 host-1"))
    held = grants(several, "live", 1, work="1 1 host-2")
    lapse(several, held)

    assert several.reclaim(held[0].lease.owner, only_lapsed=True) is None
    assert lapses(several)["a"] == ("host-2",)


@pytest.mark.parametrize("how", ["success", "dead letter", "requeued"])
def test_an_end_clears_the_mark(several, how):
    lapse(several, grants(several, "live", 1, work="1 1 host-1"))
    [held] = grants(several, "live", 1)
    if how == "success":
        several.ack(held.lease.owner, [held.lease])
    else:
        several.dead_letter(held.lease, b"{}")
    if how == "requeued":
        dead_lists.requeue(several, [StoredLetter("a", b"{}", None)], {"a": (b"{}", 2)}, nonce="n")
        assert lapses(several)["a"] is None

    assert several.calls.command("HGET", several.keys.notes, "crash:a") is None
    if how == "success":
        assert several.calls.command("HLEN", several.keys.notes) == 0


def test_a_move_and_an_isolation_keep_the_mark(several):
    lapse(several, grants(several, "live", 1, work="1 1 host-1"))
    lapse(several, grants(several, "live", 1, work="1 1 host-2"))
    [held] = grants(several, "live", 1)
    several.move(held.lease, move="divert", lane="retry", body=b"{}", delay_ms=0)
    [moved] = grants(several, "retry", 1)
    several.isolate(moved.lease)

    [found] = grants(several, "alone", 1)

    assert (found.lapses or ("",))[0].endswith("@host-2")
    assert (found.crashes, found.cause) == (0, "alone")


def test_the_backlog_shows_suspects_that_wait_to_run_alone_and_pools_that_run_them(several):
    lapse(several, grants(several, "live", 2, work="2 1 host-1"))
    for held in grants(several, "live", 3):
        several.isolate(held.lease)
    several.join("pool/alone", work="1 1 host-1")

    assert several.calls.call(script("backlog"), *several.backlog_call()) == [5, 0, 3, 0, 2, 1]


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
def test_a_crash_counts_for_72_hours_from_its_time(several, ago_h, crashes):
    assert CRASH_WINDOW_MS == 72 * HOUR_MS
    note(several, [hours * HOUR_MS for hours in ago_h])
    [held] = grants(several, "live", 1)
    assert (held.crashes, held.cause) == (2, "SIGSEGV\nlast words")

    reclaimed = several.reclaim(held.lease.owner, running=["a"], cause="SIGKILL, pid 7")

    assert reclaimed is not None and [suspect.crashes for suspect in reclaimed.suspects] == [crashes]


def test_a_lapse_counts_for_72_hours(several):
    now_ms = int(time.time() * 1000)
    old = ",".join(f"{now_ms - hours * HOUR_MS}@host-{hours}" for hours in (73, 71))
    several.calls.command("HSET", several.keys.notes, "crash:a", f"0 {now_ms} alone\n@- {old}")

    lapse(several, grants(several, "live", 1, work="1 1 host-now"))

    assert lapses(several)["a"] == ("host-71", "host-now")


UNREADABLE: dict[Any, Any] = {"level:a": "urgent", "crash:a": "often"}


@pytest.fixture
def unreadable(family: QueueOperations, valkey: redis.Redis) -> QueueOperations:
    """The family with a message whose notes say nothing: they were written by hand."""
    family.enqueue([Entry("a", b"A")], level=1)
    valkey.hset(family.keys.notes, mapping=UNREADABLE)
    return family


@pytest.mark.parametrize(
    ("act", "lane", "crashes"),
    [
        (lambda family, lease: family.release("1/live", [lease]) == [], "live", 0),
        (lambda family, lease: family.isolate(lease), "alone", 0),
        (lambda family, lease: family.reclaim("1/live", running=["a"], cause="SIGSEGV").returned == 1, "live", 1),
    ],
    ids=["given back", "isolated", "of an owner that died"],
)
def test_one_with_unreadable_notes_is_fetched_and_comes_back(unreadable, act, lane, crashes):
    held = grant(unreadable, "1/live")
    assert (held.body, held.crashes, held.cause) == (b"A", 0, "")

    assert act(unreadable, held.lease)

    found = grant(unreadable, f"2/{lane}")
    assert (found.body, found.crashes) == (b"A", crashes)


def test_one_with_unreadable_notes_becomes_due(unreadable, valkey):
    held = grant(unreadable, "1/live")
    unreadable.move(held.lease, move="divert", lane="live", body=b"B", delay_ms=1, level=1)
    valkey.hset(unreadable.keys.notes, mapping=UNREADABLE)
    unreadable.join("2/live")

    requests = itertools.count(1)
    found = wait_for(lambda: unreadable.fetch("2/live", 5, request=next(requests)).grants)

    assert [grant.body for grant in found] == [b"B"]
