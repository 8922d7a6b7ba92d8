"""Work that is late, stuck, failing or set aside."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration, codec
from switchyard.broker.queue.operations import Entry
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.operations.findings import facts as snapshot
from switchyard.operations.findings import lateness, queues
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.findings.finding import Finding
from tests.conftest import RunWorker
from tests.integration.doctor.conftest import of
from tests.waiting import wait_for

OWNER = "slow.host.1.ab.1.0/live"


def look() -> list[Finding]:
    state = snapshot.read()
    facts = facts_of(state.state)
    return [*lateness.look(facts), *queues.look_at_held(facts), *queues.look(state), *queues.look_at_undeclared()]


@pytest.fixture
def slow_up(facilities: Facilities) -> None:
    now = now_ms()
    children = [{"pid": 1, "ready": True, "busy": 0}]
    facilities.pools.write(PoolReport("slow", "h", 7, "processes", 2, 0, now, now, state="up", children=children))


def test_a_paused_queue_is_a_warning_with_the_command_that_resumes_it(enqueue: Any) -> None:
    administration.pause(enqueue("slow", Entry("waits", b"{}")))

    found = of(look(), "warning")["paused"]

    assert (found.subject, found.next) == ("slow", "manage.py switchyard queues resume slow")


def test_a_message_that_waits_past_its_promise_is_told_as_the_overview_tells_it(enqueue: Any, slow_up: None) -> None:
    hour_ago = now_ms() - 3_600_000
    late = Message("slow", "an_actor", (), {}, {"enqueued_at": hour_ago}, "late", hour_ago)
    enqueue("slow", Entry("late", codec.encode(late)))

    found = of(look(), "error")["late"]

    assert found.seen.startswith("slow is 12 × behind its promise, because no start was seen yet in its free slots; ")


def test_a_lease_that_ran_out_and_nobody_took_back_is_an_error(enqueue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "RECLAIMED_S", 0.05)
    family = enqueue("slow", Entry("held", b"{}"), Entry("too", b"{}"))
    family.join(OWNER, lease_ms=30)
    family.fetch(OWNER, 2, request=1)
    family.renew([OWNER], lease_ms=1)

    found = wait_for(lambda: of(look(), "error").get("lapsed"))

    assert "1 lease with 2 messages" in found.seen
    assert found.next == "manage.py switchyard runpool slow"


def test_unreadable_messages_are_a_warning(enqueue: Any) -> None:
    family = enqueue("slow", Entry("odd", b"\xff"))
    family.join(OWNER)
    [odd] = family.fetch(OWNER, 1, request=1).grants
    family.quarantine(odd.lease, b"{}")

    assert (
        of(look(), "warning")["quarantined"].next == "manage.py switchyard deadletters list --quarantined --queue slow"
    )


def test_messages_that_no_worker_knows_are_a_warning_that_names_what_they_call(
    facilities: Facilities, run_worker: RunWorker
) -> None:
    dramatiq.get_broker().enqueue(Message("slow", "from_the_future", (), {}, {}))
    with run_worker("slow"):
        found = wait_for(lambda: of(look(), "warning").get("parked"))

    assert found.seen == "slow: 1 message waits for a worker that can run it; it calls from_the_future"
    assert found.next.startswith("manage.py switchyard check_backlog")


def test_messages_that_took_their_worker_down_twice_are_named_in_a_command_that_can_be_pasted(enqueue: Any) -> None:
    poison = "$(touch /tmp/a)"
    family = enqueue("slow", Entry(poison, b"{}"), Entry("innocent", b"{}"))
    for number in (1, 2):
        owner = f"slow.host.{number}.ab.1.0/live"
        family.join(owner)
        family.fetch(owner, 2, request=1)
        family.reclaim(owner, running=[poison] if number == 2 else [poison, "innocent"], cause="SIGSEGV")

    found = of(look(), "warning")["crashing"]

    assert "1 message crashed its worker" in found.seen and poison in found.seen and "innocent" not in found.seen
    assert found.next == f"manage.py switchyard jobs show '{poison}'"


def test_messages_that_ran_when_a_whole_pool_ended_are_named(enqueue: Any) -> None:
    family = enqueue("slow", Entry("suspect", b"{}"), Entry("stock", b"{}"))
    for number in (1, 2):
        owner = f"slow.host.{number}.ab.1.0/live"
        family.join(owner, work="1 1 host-1")
        family.fetch(owner, 2, request=1)
        family.renew([owner], lease_ms=-1)
        family.reclaim(owner, only_lapsed=True)

    found = of(look(), "warning")["suspects"]

    assert found.seen == "slow: 1 message, held by a pool that fell silent, is to run alone (suspect)"
    assert "killed 1 time while suspect ran alone" in found.cause
    assert found.next == "manage.py switchyard jobs show suspect"


def test_suspects_on_another_server_are_named_from_their_notes(enqueue: Any) -> None:
    family = enqueue("slow")
    now = now_ms()
    note = f"{now} - 1@host-1,2@host-2"
    old = f"{now - snapshot.SUSPECTED_MS - 60_000} - 1@a,2@b,3@c"
    family.calls.command("HSET", family.keys.suspects, "pill", note, "odd", "not a note", "ended", old)

    found = of(look(), "warning")["suspects"]

    assert found.seen == "slow: 1 message, held by a pool that fell silent, is to run alone (pill)"
    assert "killed 2 times while pill ran alone" in found.cause


def test_many_retries_are_a_warning_and_a_few_are_daily_life(enqueue: Any) -> None:
    few = [Entry(f"few-{number}", b"{}") for number in range(99)]
    enqueue("slow", *few, lane="retry", delay_ms=60_000)
    assert of(look(), "warning") == {}

    enqueue("slow", Entry("one more", b"{}"), lane="retry", delay_ms=60_000)

    assert "100 failed jobs" in of(look(), "warning")["retrying"].seen


def test_messages_of_a_queue_that_was_removed_are_an_error(enqueue: Any) -> None:
    enqueue("renamed", Entry("left", b"{}"), Entry("behind", b"{}"))

    found = of(look(), "error")["undeclared"]

    assert found.subject == "renamed"
    assert "2 messages are in the queue renamed" in found.seen


@pytest.mark.parametrize(("pool", "release"), [("imports", ""), ("slow", "newer")])
def test_messages_of_a_queue_that_another_release_may_serve_are_a_warning(
    enqueue: Any, facilities: Facilities, pool: str, release: str
) -> None:
    enqueue("renamed", Entry("left", b"{}"))
    now = now_ms()
    facilities.pools.write(PoolReport(pool, "h", 7, "threads", 2, 0, now, now, state="up", release=release))

    found = of(look(), "warning")["undeclared"]

    assert found.cause == f"Pools of another release may serve it: {pool}"


def test_a_removed_queue_is_found_among_any_number_of_keys(enqueue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"renamed-{number}" for number in range(40)]
    for name in names:
        broker = enqueue(name, Entry("left", b"{}"))
    monkeypatch.setattr(snapshot, "SCANNED_KEYS", 1)  # one part of the keys a call
    monkeypatch.setattr(snapshot, "SCANNED_AT_ONCE", 10)
    search = snapshot.QueueSearch()

    found = [search.look() for _ in range(40)]

    # The server's order of keys is random: a part may hold none of them.
    counts = [len(each) for each in found]
    assert counts == sorted(counts) and len(set(counts)) > 2 and counts[0] < len(names)
    assert found[-1] == dict.fromkeys(names, 1)
    administration.flush(broker)
    assert names[-1] not in {name for name, count in search.look().items() if count}
