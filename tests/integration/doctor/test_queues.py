"""Queues and pools that the doctor examines: late, held, crashing, removed; not reporting, off their clocks."""

import re
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration, codec
from switchyard.broker.queue.operations import Entry
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.conf import STARTED_MS
from switchyard.operations.findings import facts, lateness, pools, queues
from switchyard.operations.findings import facts as snapshot
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.findings.finding import Finding
from tests.integration.doctor.conftest import of
from tests.waiting import wait_for

OWNER = "slow.host.1.ab.1.0/live"


def look() -> list[Finding]:
    state = snapshot.read()
    facts = facts_of(state.state)
    return [*lateness.look(facts), *queues.look_at_held(facts), *queues.look(state), *queues.look_at_undeclared()]


def test_a_paused_queue_is_a_warning_with_the_command_that_resumes_it(enqueue):
    administration.pause(enqueue("slow", Entry("waits", b"{}")))

    found = of(look(), "warning")["paused"]

    assert (found.subject, found.next) == ("slow", "manage.py switchyard queues resume slow")


def test_a_message_that_waits_past_its_promise_is_told_as_the_overview_tells_it(enqueue, facilities):
    now, children = now_ms(), [{"pid": 1, "ready": True, "busy": 0}]
    facilities.pools.write(PoolReport("slow", "h", 7, "processes", 2, 0, now, now, state="up", children=children))
    hour_ago = now - 3_600_000
    late = Message("slow", "an_actor", (), {}, {"enqueued_at": hour_ago}, "late", hour_ago)
    enqueue("slow", Entry("late", codec.encode(late)))

    found = of(look(), "error")["late"]

    assert found.seen.startswith("slow is 12 × behind its promise, because no start was seen yet in its free slots; ")


def test_a_lease_that_ran_out_and_nobody_took_back_is_an_error(enqueue, monkeypatch):
    monkeypatch.setattr(queues, "RECLAIMED_S", 0.05)
    family = enqueue("slow", Entry("held", b"{}"), Entry("too", b"{}"))
    family.join(OWNER, lease_ms=30)
    family.fetch(OWNER, 2, request=1)
    family.renew([OWNER], lease_ms=1)

    found = wait_for(lambda: of(look(), "error").get("lapsed"))

    assert "1 lease with 2 messages" in found.seen
    assert found.next == "manage.py switchyard runpool slow"


def test_unreadable_messages_are_a_warning(enqueue):
    family = enqueue("slow", Entry("odd", b"\xff"))
    family.join(OWNER)
    [odd] = family.fetch(OWNER, 1, request=1).grants
    family.quarantine(odd.lease, b"{}")

    assert (
        of(look(), "warning")["quarantined"].next == "manage.py switchyard deadletters list --quarantined --queue slow"
    )


def test_messages_that_no_worker_knows_are_a_warning_that_names_what_they_call(facilities, run_worker):
    dramatiq.get_broker().enqueue(Message("slow", "from_the_future", (), {}, {}))
    with run_worker("slow"):
        found = wait_for(lambda: of(look(), "warning").get("parked"))

    assert found.seen == "slow: 1 message waits for a worker that can run it; it calls from_the_future"
    assert found.next.startswith("manage.py switchyard check_backlog")


def test_messages_that_took_their_worker_down_twice_are_named_in_a_command_that_can_be_pasted(enqueue):
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


def test_messages_that_ran_when_a_whole_pool_ended_are_named(enqueue):
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


def test_suspects_on_another_server_are_named_from_their_notes(enqueue):
    family = enqueue("slow")
    now = now_ms()
    note = f"{now} - 1@host-1,2@host-2"
    old = f"{now - snapshot.SUSPECTED_MS - 60_000} - 1@a,2@b,3@c"
    family.calls.command("HSET", family.keys.suspects, "pill", note, "odd", "not a note", "ended", old)

    found = of(look(), "warning")["suspects"]

    assert found.seen == "slow: 1 message, held by a pool that fell silent, is to run alone (pill)"
    assert "killed 2 times while pill ran alone" in found.cause


def test_many_retries_are_a_warning_and_a_few_are_daily_life(enqueue):
    enqueue("slow", *[Entry(f"few-{number}", b"{}") for number in range(99)], lane="retry", delay_ms=60_000)
    assert of(look(), "warning") == {}

    enqueue("slow", Entry("one more", b"{}"), lane="retry", delay_ms=60_000)

    assert "100 failed jobs" in of(look(), "warning")["retrying"].seen


def test_messages_of_a_queue_that_was_removed_are_an_error(enqueue):
    enqueue("renamed", Entry("left", b"{}"), Entry("behind", b"{}"))

    found = of(look(), "error")["undeclared"]

    assert found.subject == "renamed"
    assert "2 messages are in the queue renamed" in found.seen


@pytest.mark.parametrize(("pool", "release"), [("imports", ""), ("slow", "newer")])
def test_messages_of_a_queue_that_another_release_may_serve_are_a_warning(enqueue, facilities, pool, release):
    enqueue("renamed", Entry("left", b"{}"))
    now = now_ms()
    facilities.pools.write(PoolReport(pool, "h", 7, "threads", 2, 0, now, now, state="up", release=release))

    assert of(look(), "warning")["undeclared"].cause == f"Pools of another release may serve it: {pool}"


def test_a_removed_queue_is_found_among_any_number_of_keys(enqueue, monkeypatch):
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


Report = Callable[..., None]


@pytest.fixture
def report(facilities: Facilities) -> Report:
    """Every pool reports that it is well, but for what a test says of ``slow``; its report may be left out."""

    def write(*, gone: bool = False, **changes: Any) -> None:
        now = now_ms()
        for pool in settings.SWITCHYARD.topology.pools:
            children = [{"pid": number, "ready": True, "busy": 0} for number in range(pool.children)]
            told: dict[str, Any] = {
                "pool": pool.name, "host": "h", "pid": 7, "kind": pool.kind, "slots": pool.total_slots, "busy": 0,
                "started_at": now - 90_000, "beat_at": now, "state": "up", "children": children,
            }  # fmt: skip
            if pool.name == "slow":
                told |= changes
            if pool.name != "slow" or not gone:
                facilities.pools.write(PoolReport(**told))

    return write


def look_at_pools() -> list[Finding]:
    state = facts.read()
    return [*pools.look(state), *pools.look_at_absence(facts_of(state.state))]


def test_a_pool_that_does_not_run_is_a_warning_and_with_work_an_error(report, enqueue):
    report(gone=True)
    idle = of(look_at_pools(), "warning")["down"]
    enqueue("slow", Entry("waits", b"{}"))

    missed = of(look_at_pools(), "error")["down"]

    assert idle.next == missed.next == "manage.py switchyard runpool slow"
    assert "was killed" in idle.cause and idle.cause == missed.cause
    assert "1 job waits" in missed.seen


@pytest.mark.parametrize(
    ("changes", "severity", "code", "said"),
    [
        ({"state": "paused"}, "error", "paused", "manage.py switchyard broker"),
        ({"state": "starting", "children": []}, "error", "starting", "0 of 2 children are ready"),
        ({"children": [{"pid": 1, "ready": True}]}, "warning", "children", "has 1 of 2 children"),
    ],
)
def test_a_pool_that_does_not_work_is_told(report, changes, severity, code, said):
    report(**changes)

    found = of(look_at_pools(), severity)[code]

    assert said in f"{found.seen} {found.next}"


def test_children_that_crashed_within_the_hour_are_a_warning_and_those_before_are_none(report):
    report(restarts={"recycled": 400, "recycled_memory": 30, "SIGSEGV": 40}, crashes={"SIGSEGV": 2})
    assert of(look_at_pools(), "warning") == {}

    report(restarts={"recycled": 400, "SIGSEGV": 41}, crashes={"SIGSEGV": 3})

    crashed = of(look_at_pools(), "warning")["restarts"]
    report(crashes={"SIGKILL": 3})
    killed = of(look_at_pools(), "warning")["restarts"]

    assert "within the last hour: 3 × SIGSEGV" in crashed.seen
    assert ("dmesg" in crashed.cause, "dmesg" in killed.cause) == (False, True)


@pytest.mark.parametrize(
    ("ago_s", "code"), [((12, 7, 2), "crashing"), ((26, 21, 16), "restarts"), ((40, 25, 5), "restarts")]
)
def test_children_that_crash_one_after_the_other_are_told_while_they_do(report, ago_s, code):
    now = now_ms()
    report(crashes={"SIGKILL": 9}, crashed=[now - each * 1_000 for each in ago_s])

    found = of(look_at_pools(), "warning")

    assert [name for name in ("crashing", "restarts") if name in found] == [code]
    if code == "crashing":
        said = r"has lost one child after the other: 3 within 10 s, the last 2\.?\d* s ago; .* 9 × SIGKILL"
        assert re.search(said, found[code].seen)


@pytest.mark.parametrize(
    ("what", "option", "own", "other"),
    [("releases", "release", "1.0", "1.1"), ("settings", "settings", "aa11", "bb22")],
)
def test_two_releases_or_settings_on_one_pool_are_a_warning_once_a_deploy_has_had_its_time(
    report, facilities, what, option, own, other
):
    now = now_ms()
    report(**{"release": "1.0", option: own}, started_at=now - 3_600_000)

    def found_after(ms: int, told: str) -> dict[str, Finding]:
        values = {"release": "1.0", option: told}
        facilities.pools.write(PoolReport("slow", "web-2", 9, "processes", 2, 0, now - ms, now, "up", **values))
        return {
            code: found for code, found in of(look_at_pools(), "warning").items() if code in ("settings", "releases")
        }

    assert found_after(60_000, other) == {}
    assert found_after(660_000, own) == {}
    [(code, found)] = found_after(660_000, other).items()
    said = rf"slow runs 2 {what} beside one another for 11 min \d\d s: {re.escape(f'{own} on h, {other} on web-2')}"
    assert code == what and re.fullmatch(said, found.seen)


@pytest.mark.parametrize(
    ("own_since_s", "release", "since_s", "step"),
    [
        (90, "1.0", 300, "kill -TERM 9, on h"),
        (90, "1.1", 20, "Deploy the new release"),
        (90, "1.1", -600, "Deploy the new release"),
        (None, "1.1", -600, "Deploy the new release"),
        (None, "", -600, "Deploy the new release"),
        (None, "1.1", 300, "kill -TERM 9, on h, if its release is the older one"),
    ],
)
def test_a_pool_that_is_not_declared_is_ended_only_where_it_is_of_the_older_release(
    report, facilities, configure, own_since_s, release, since_s, step
):
    """Pools are deployed first: web and scheduler, and a doctor beside them, are of the older release for a while."""
    configure(release="own")
    now = now_ms()
    if own_since_s is not None:
        report(release="own", started_at=STARTED_MS - own_since_s * 1000)
    started_at = STARTED_MS - since_s * 1000
    facilities.pools.write(PoolReport("gone", "h", 9, "threads", 1, 0, started_at, now, state="up", release=release))

    told = of(look_at_pools(), "warning")["undeclared"].next
    assert told == step or (not step.startswith("kill") and told.startswith(step))


@pytest.mark.parametrize(("off_s", "word"), [(60, "ahead of"), (-60, "behind")])
def test_a_host_whose_clock_is_off_is_a_warning(report, off_s, word):
    report(beat_at=now_ms() - 12_000)  # of one that was killed before it had compared its clock
    killed = of(look_at_pools(), "warning")
    report(clock_ahead_ms=off_s * 1000)

    assert "clock_off" not in killed
    found = of(look_at_pools(), "warning")["clock_off"]

    assert word in found.seen and "timedatectl" in found.next
