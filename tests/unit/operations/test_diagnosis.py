"""The verdict of the overview, the order of causes, and the number of slots that would do."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis

from switchyard.broker.clock import now_ms
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.pool_reports import Instruction, PoolReport, SilentChild, SilentSupervisor
from switchyard.broker.stores.yard_facts import RUN_MS, RUNS, SUCCEEDED, WAITS
from switchyard.broker.topology import Queue
from switchyard.operations import diagnosis
from switchyard.operations.diagnosis import PRECEDENCE, slots_needed
from switchyard.operations.findings import lateness, queues
from switchyard.operations.findings.actors import AllFailing, FailingActor, judge
from switchyard.operations.findings.examine import broker_away
from switchyard.operations.findings.facts import Flood, HeldGroup
from switchyard.operations.findings.finding import PRECEDENCE as RANKS
from switchyard.operations.findings.finding import Finding, FindingGroup, causes, ranked
from switchyard.operations.overview import Verdict, diagnose, shown_rows
from switchyard.operations.past import Usual
from switchyard.operations.queries import PoolState, Rates, YardState
from switchyard.operations.rows import Row, RowStatus
from switchyard.operations.supervisors import ServerState
from tests.unit.documentation.pages import read
from tests.unit.operations.yards import YARD, down, facts, lane, pool, running, state

pytestmark = pytest.mark.usefixtures("small_yard")
LATE = lane("mail", 64, running=4, age_ms=41_000)
LOCKED = Finding("database", "locked", "error", "the database is locked, by pid 7 (psql): nothing can be written")


def verdict(now: YardState, *examined: Finding, open_letters: int = 0) -> Verdict:
    return diagnose(facts(now), examined, open_letters)


def failing(**changes: object) -> Finding:
    now = datetime.now(UTC)
    values = {"actor": "report", "queue": "mail", "exception": "KeyError", "failed": 50, "jobs": 100, "first_at": now}
    return judge(FailingActor(**{**values, "last_at": now, **changes}))  # type: ignore[arg-type]


def pressed(found: Verdict) -> tuple[str, str]:
    """Return the words and the address of the button that is offered."""
    return found.button.label, found.button.href


def test_quiet_yard_is_healthy_once_everything_was_checked_and_without_old_dead_letters():
    found, unchecked = verdict(state()), diagnose(facts(state()), None, 0)

    assert (found.level, found.label, found.sentence) == ("ok", "Healthy", "Every queue is on time.")
    assert found.facts[1] == ("108 of 108", "slots idle")
    assert (unchecked.level, unchecked.label) == ("ok", "On time") and "not checked yet" in unchecked.sentence
    found = verdict(state(), open_letters=16)

    assert (found.level, found.label) == ("ok", "On time")
    assert found.sentence == "Every queue is on time; 16 dead letters wait to be triaged."
    assert pressed(found) == ("Triage 16 dead letters", "/admin/switchyard_dead_letters/deadletter/")
    assert "1 dead letter waits" in verdict(state(), open_letters=1).sentence


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (LOCKED, "bad"),
        (Finding("alerts", "open", "warning", "2 critical alerts are not acknowledged"), "warn"),
        (Finding("configuration", "no_alert_urls", "warning", "SWITCHYARD_ALERT_URLS is not set"), "ok"),
        (Finding("a group", "to come", "warning", "something is odd"), "warn"),
    ],
)
def test_no_finding_of_the_doctor_stands_below_healthy(finding, level):
    found = verdict(state(), finding)

    assert found.level == level
    assert found.label != "Healthy"
    assert finding.seen.lstrip("t") in found.sentence


def test_broker_that_is_away_or_serves_nobody_comes_before_everything_and_nothing_is_claimed_of_it():
    found = diagnose(None, [LOCKED], 5, "the broker does not answer within 2 s")
    error = redis.ConnectionError("max number of clients reached")
    full = diagnose(None, [LOCKED], 5, broker_away(FindingGroup("broker"), error))

    assert (found.level, found.label, found.also, found.facts) == ("bad", "Broker away", (), ())
    assert found.sentence == "No job can be sent or seen from here, because the broker does not answer within 2 s."
    assert "safe" not in found.then and "doctor" not in found.then
    assert found.button.label == "Check the broker again"
    said = "No job can be sent or seen from here, because the broker takes no more connections (maxclients)."
    assert full.sentence == said
    assert "`ss -tnp`" in full.then and full.step in full.then


def test_broker_that_is_nearly_full_is_told_before_what_is_late_now_and_then():
    full = ServerFinding("nearly_full", "warning", "the server uses 93 % of its memory", "Raise it.")
    often = Finding("queues", "burning", "warning", "mail is late again and again", subject="mail")
    found = verdict(replace(state(scheduler_up=False), server=ServerState(findings=(full,))), often)

    assert found.label == "No scheduler"
    broker = "The broker is not safe: the server uses 93 % of its memory."
    assert found.also == (broker, "mail is late again and again.")
    assert verdict(replace(state(), server=ServerState(findings=(full,)))).level == "warn"


def test_what_the_last_examination_said_of_the_broker_and_queues_does_not_outlive_it():
    stale = [
        Finding("broker", "away", "error", "gone"),
        Finding("queues", "late", "error", "late", subject="mail"),
        Finding("history", "away", "error", "the server does not answer (ConnectionError)"),
    ]

    assert verdict(state(), *stale).label == "Healthy"


def test_many_retries_are_told_before_the_first_job_gives_up():
    found = verdict(state(retry=lane("mail-retry", 3, scheduled=96, running=1)))

    assert (found.level, found.sentence) == ("warn", "100 failed jobs of mail wait for a retry.")
    assert found.button.href == "/admin/switchyard_jobs/job/?state=retrying&queue=mail"
    assert verdict(state(retry=lane("mail-retry", scheduled=99))).label == "Healthy"


def test_the_label_of_a_late_queue_is_the_word_of_its_row(monkeypatch):
    now = facts(state(LATE, pool("mail", busy=4)), [running("export", "mail", ran_ms=20_000)] * 4)
    monkeypatch.setattr(lateness, "_others", lambda queue, actor: True)
    monkeypatch.setattr(lateness, "families", lambda queues: [])

    blocked = diagnose(now, (), 0)
    monkeypatch.setattr(lateness, "_others", lambda queue, actor: False)
    monkeypatch.setattr(lateness, "flood_of", lambda row: Flood(96, 100, owner="acme"))
    flooded = diagnose(now, (), 0)

    assert (blocked.label, flooded.label) == ("Blocked", "Flooded")
    assert "64 jobs wait, about 96 % of acme, the oldest for" in flooded.sentence
    href = "/admin/switchyard_jobs/job/?state=queued&queue=mail&owner=acme"
    assert pressed(flooded) == ("Show the waiting jobs of acme", href)
    assert flooded.step == "manage.py switchyard jobs list --state queued --queue mail --owner acme"


@pytest.mark.parametrize(
    ("others", "to"),
    [((), ""), (({"objective_ms": 5},), ""), (({"hard_limit_ms": 20_000},), ""), (({},), "other"),
     (({"objective_ms": None}, {"objective_ms": 60_000}), "other-1"), (({"objective_ms": 2_000},), "other")],
)  # fmt: skip
def test_a_blocked_queue_is_freed_by_a_move_to_a_slower_queue_alone(others, to, monkeypatch):
    values = {"objective_ms": 300_000, "soft_limit_ms": 10_000, "hard_limit_ms": 600_000}
    more = [Queue(f"other-{at}" if at else "other", **(values | change)) for at, change in enumerate(others)]
    slots = [SimpleNamespace(total_slots=4)]
    yard = SimpleNamespace(queues=(*YARD.queues, *more), queue_of=YARD.queue_of, pools_of=lambda name: slots)
    waiting = SimpleNamespace(items=[SimpleNamespace(message=SimpleNamespace(actor_name="export"))], cursor=None)
    monkeypatch.setattr(lateness, "declared_yard", lambda: yard)
    monkeypatch.setattr(lateness, "_others", lambda queue, actor: True)
    monkeypatch.setattr(lateness, "families", lambda queues: [None])
    monkeypatch.setattr(lateness, "look_into", lambda *args, **limits: waiting)
    monkeypatch.setattr(lateness, "flood_of", lambda row: None)

    found = diagnose(facts(state(LATE, pool("mail", busy=4)), [running("export", "mail", ran_ms=20_000)] * 4), (), 0)

    assert found.label == "Blocked"
    if to:
        assert found.step == f"manage.py switchyard queues relocate export --from mail --to {to}"
        assert found.button.href.endswith(f"/queues/mail/relocate/?actor=export&to={to}")
        assert f": write {to} as its `queue_name`" in found.then
    else:
        assert (found.step, found.button.label) == ("manage.py switchyard actors pause export", "Pause export…")
        assert "no slower queue has the slots for it: pause export" in found.then


def hanging(**changes: object) -> AllFailing:
    values = {"failed": 8, "jobs": 8, "since": now_ms() - 120_000, "exception": "MailNotSent", "slow": True}
    return AllFailing(**{**values, "host": "", "fact": "", **changes})  # type: ignore[arg-type]


def two_late() -> tuple[YardState, list[Job]]:
    """Return a yard of which both queues are late, and two actors that hold their slots."""
    now = state(LATE, pool("mail", busy=4), pool("hooks", busy=64))
    hooks = msgspec.structs.replace(now.queues[1], live=lane("hooks", 9, running=64, age_ms=3_000))
    jobs = [running("reset", "mail", ran_ms=9_000)] * 4 + [running("news", "hooks", ran_ms=9_000)] * 60
    return replace(now, queues=(now.queues[0], hooks)), jobs


def test_actors_whose_calls_all_fail_are_one_cause_of_all_queues_that_are_late_by_them():
    now, jobs = two_late()
    failing_now = [failing(actor="reset", queue="mail"), failing(actor="news", queue="hooks")]
    found = diagnose(facts(now, jobs, failing={"reset": hanging(), "news": hanging()}), failing_now, 0)

    assert (found.level, found.label) == ("bad", "Hangs")
    assert found.sentence == (
        "What reset and news call does not answer: all of their 16 jobs in 2 min 00 s failed with MailNotSent; "
        "mail and hooks are late by it."
    )
    href = "/admin/switchyard_jobs/job/?failures=1&actor=reset&since=5m"
    assert pressed(found) == ("Show the failed jobs of reset", href)
    for each in found.findings:
        for text in (each.finding.then, each.finding.next, each.finding.button.label if each.finding.button else ""):
            assert not re.search("another queue|more slots|relocate|Move", text), text
    assert [each.finding.name for each in causes(found.findings)] == ["queues.all_failing"]
    assert {row.name: row.state.word for row in shown_rows(facts(now, jobs, failing={"reset": hanging()}))} == {
        "mail": "Hangs", "hooks": "Late", "hooks-retry": "Quiet", "retries": "Quiet"
    }  # fmt: skip


def test_jobs_that_fail_at_once_wait_for_nobody_and_a_host_that_they_name_is_told():
    now, jobs = two_late()
    quick = diagnose(facts(now, jobs, failing={"reset": hanging(slow=False, failed=15, jobs=16)}), (), 0)
    host = hanging(host="mx.example", fact="refused the connection", jobs=1, failed=1)
    named = diagnose(facts(now, jobs, failing={"reset": host, "news": host}), [failing(actor="news", host="mx")], 0)

    assert quick.label == "Failing"
    assert quick.sentence == (
        "reset fails: 15 of its 16 jobs in 2 min 00 s failed with MailNotSent; mail is late by it."
    )
    assert any(other.startswith("hooks is 3.0 × behind its promise") for other in quick.also)
    assert named.sentence.startswith("mx.example is down for reset and news (refused the connection): all of their 2")
    assert [each.finding.name for each in causes(named.findings)] == ["queues.all_failing"]
    two = diagnose(facts(now, jobs, failing={"reset": hanging(), "news": hanging(exception="CrmAway")}), (), 0)
    assert [each.finding.subject for each in two.findings] == ["mail", "hooks"]


def test_a_late_queue_whose_slots_other_actors_hold_is_not_late_by_one_that_fails():
    now = state(LATE, pool("mail", busy=4))
    jobs = [running("export", "mail"), running("export", "mail"), running("export", "mail"), running("reset", "mail")]
    found = diagnose(facts(now, jobs, failing={"reset": hanging()}), (), 0)

    assert found.label == "Late" and "3 × export hold 3 of 4 slots" in found.sentence


def test_an_actor_that_sends_itself_is_to_be_paused(monkeypatch):
    now = facts(state(LATE, pool("mail", busy=4)), [running("fan_out", "mail", ran_ms=20_000)] * 4)
    flood = Flood(98, 100, actor="fan_out", place="newest")
    monkeypatch.setattr(lateness, "_others", lambda queue, actor: True)
    monkeypatch.setattr(lateness, "flood_of", lambda row: flood)
    monkeypatch.setattr(lateness, "lately", lambda queue: Rates(101.4, 60, 60, 10))
    found = diagnose(now, (), 0)

    assert found.label == "Flooded"
    assert found.sentence == (
        "mail is 41 × behind its promise, because fan_out sends itself: 98 of the newest 100 that wait, 101 arrive a "
        "second; 64 jobs wait, the oldest for 41 s."
    )
    assert pressed(found) == ("Pause fan_out…", "/admin/operations/actors/fan_out/pause/")
    assert found.step == "manage.py switchyard actors pause fan_out"
    assert "jobs cancel --filter actor=fan_out" in found.then and "more slots" not in found.then


def test_jobs_that_run_longer_than_before_are_neither_moved_nor_given_slots(monkeypatch):
    jobs = [running("send", "mail", ran_ms=20_000)] * 4
    monkeypatch.setattr(lateness, "_others", lambda queue, actor: True)
    counts = {"a:send": {SUCCEEDED: 40, RUNS + 4: 40}}
    store = SimpleNamespace(server_ms=lambda: 0, recent=lambda at: [(0, counts)])
    monkeypatch.setattr(lateness, "facilities", lambda: SimpleNamespace(facts=store))
    found = diagnose(facts(state(LATE, pool("mail", busy=4)), jobs), (), 0)

    assert found.label == "Late"
    assert "4 × send hold all 4 slots, the longest for 20 s, while half of those before took 60 ms;" in found.sentence
    assert found.then == f"What send calls is slow, or it hangs: look there first. {lateness.SLOTS_WAIT}"
    # Of few that have ended all were short, perhaps hours ago.
    counts["a:send"] = {}
    store.minutes = lambda *of: {0: {SUCCEEDED: 2, RUNS + 4: 2}}
    begun = [running("send", "mail", ran_ms=each) for each in (100, 100, 900, 6_000)]
    assert lateness._usually("send", begun) == "", "one of them may be a rare long one"
    assert lateness._usually("send", begun, one=True) == "none before took over 80 ms"
    begun[2] = running("send", "mail", ran_ms=5_000)
    assert lateness._usually("send", begun) == "none before took over 80 ms"
    store.minutes = lambda *of: {0: {SUCCEEDED: 2, RUNS + 4: 1, RUNS + 11: 1}}
    assert lateness._usually("send", begun) == "", "one of them took as long"
    store.minutes = lambda *of: {}
    assert lateness._usually("send", begun) == "", "nothing is known of it"


def test_the_value_that_floods_a_queue_is_to_be_paused_and_its_end_is_told(monkeypatch):
    now = facts(state(LATE, pool("mail", busy=4)), [running("sync", "mail", ran_ms=50)] * 4)
    monkeypatch.setattr(
        lateness, "flood_of", lambda row: Flood(97, 100, actor="sync", argument='of="a b"', place="next")
    )
    monkeypatch.setattr(lateness, "lately", lambda queue: Rates(5, 13, 13, 10))
    found = diagnose(now, (), 0)

    assert found.label == "Flooded"
    assert found.sentence.endswith(
        '64 jobs wait, 97 of the next 100 are of="a b", the oldest for 41 s; empty in about 8.0 s.'
    )
    href = "/admin/operations/actors/sync/pause/?argument=of%3D%22a+b%22"
    assert pressed(found) == ('Pause sync for of="a b"…', href)
    assert found.step == "manage.py switchyard actors pause sync --argument 'of=\"a b\"'"
    assert "more slots" not in found.then


def test_a_quieted_pool_is_told_with_who_and_why_before_what_waits_for_it():
    by_ada = Instruction("1", "quiet", 1, now_ms() - 65_000, "ada", "leaks")
    quieted = pool("mail", slots=0, quieted=1, instructions=(by_ada,))
    waits, idle = verdict(state(LATE, quieted)), verdict(state(None, quieted))
    half = verdict(state(None, pool("mail", supervisors=2, quieted=1)))

    assert (waits.level, waits.label) == ("bad", "Quieted")
    assert waits.sentence == (
        "mail starts nothing, because ada quieted its only supervisor 1 min 05 s ago (leaks); 64 jobs wait."
    )
    href = "/admin/operations/instructions/resume/?pool=mail"
    assert pressed(waits) == ("Let 1 supervisor of mail take work again…", href)
    assert waits.step == "manage.py switchyard workers resume --pool mail"
    assert idle.level == "warn" and "nothing waits there yet" in idle.sentence
    assert half.sentence == "1 of 2 supervisors of mail takes no new work: an operator quieted it."


def test_many_pools_that_are_down_are_told_in_one_sentence_with_all_that_waits():
    found = verdict(state(None, *(down(one.name) for one in YARD.pools)))
    some = verdict(state(None, *(down(name) for name in ("mail", "hooks", "retries"))))
    killed = SilentSupervisor("mail", "web-2", 4711, now_ms() - 16_000)
    late = lane("mail", 3, age_ms=16_000)
    needed = verdict(state(late, *(replace(down(one.name), silent=(killed,)) for one in YARD.pools)))

    assert found.sentence == (
        "No pool serves mail, hooks, hooks-retry, retries: no supervisor of them reports; nothing waits there yet."
    )
    assert (found.step, found.also) == ("manage.py switchyard runpools", ())
    assert (some.step, needed.level) == ("manage.py switchyard runpool mail", "bad")
    assert needed.sentence == (
        "No pool serves mail, hooks, hooks-retry, retries: of mail, its supervisor (pid 4711 on web-2) has not "
        "reported for 16 s; 3 jobs wait."
    )
    assert needed.step.startswith("On web-2: `kill -CONT 4711` if")
    assert [each.finding.name for each in causes(needed.findings)] == ["pools.down"]


def test_more_slots_are_advised_only_where_it_is_known_what_holds_them():
    busy = state(LATE, pool("mail", busy=4))
    locked = diagnose(facts(busy, [running("export", "mail")] * 4), [LOCKED], 0)

    assert "more slots" not in verdict(busy).then
    assert locked.label == "Database locked" and "by pid 7 (psql)" in locked.sentence
    assert "more slots" not in locked.then
    assert locked.also[0].startswith("mail is 41 × behind its promise")


def test_a_wait_is_late_a_second_past_the_promise_and_never_healthy_before():
    ages = ((1, 999), (3, 1_100), (3, 2_100))
    quick, urgent, long = (state(lane("mail", waits, age_ms=age), pool("mail", busy=4)) for waits, age in ages)

    assert (verdict(quick).label, verdict(urgent).label) == ("Healthy", "Just late")
    assert verdict(long).label == "Late"


def test_a_paused_queue_that_is_full_says_what_its_senders_get(monkeypatch):
    now = state(lane("mail", waiting=40, scheduled=10), paused=True)
    assert "QueueFull" not in verdict(now).sentence

    bounded = replace(YARD, queues=(replace(YARD.queues[0], max_depth=50), YARD.queues[1]))
    monkeypatch.setattr(queues, "declared_yard", lambda: bounded)
    assert verdict(now).sentence.endswith("; 40 jobs wait, and it is full: who sends to it gets QueueFull.")


def held_back(group: HeldGroup) -> Verdict:
    return diagnose(facts(state(lane("mail", scheduled=50)), mail=(group,)), (), 0)


def test_messages_that_are_held_back_are_told_with_the_time_of_the_last_or_once_the_first_has_waited_for_long():
    now = datetime.now(UTC)
    last, days, ago = (timedelta(minutes=5, milliseconds=500), timedelta(days=9), now - timedelta(minutes=5))
    rate = HeldGroup("welcome", "rate limit, 10/m", 50, now, now + last, now, by_limit=True)
    place = HeldGroup("sync", "concurrency, 1", 50, None, now + days, ago, True)
    paused = HeldGroup("sync", "actor paused", 50, None, now + days, ago, paused=True)
    by_rate, by_place, by_pause = held_back(rate), held_back(place), held_back(paused)

    assert [(each.level, each.label) for each in (by_rate, by_place, by_pause)] == [("warn", "Limited")] * 3
    said = "50 welcome wait for their turn, the last for 5 min 00 s: its rate limit, 10/m, holds them back."
    assert by_rate.sentence == said
    assert by_rate.button.href == "/admin/switchyard_jobs/job/?state=scheduled&queue=mail&actor=welcome"
    said = "50 sync wait for their turn, the first for 5 min 00 s: its concurrency, 1, holds them back."
    assert by_place.sentence == said
    assert by_place.then == "They start as those that run end. To be faster, raise the limit of sync."
    assert by_pause.sentence.startswith("50 sync wait for their turn, the first for 5 min")
    assert "is paused" in by_pause.sentence and by_pause.step == "manage.py switchyard actors show sync"
    assert held_back(replace(rate, last=now + timedelta(seconds=30))).label == "Healthy"
    assert held_back(replace(place, sent=now - timedelta(seconds=20))).label == "Healthy"


def test_failures_name_actor_exception_share_number_and_host_and_no_share_is_rounded_to_none_or_all():
    found, alone = verdict(state(), failing(letters=9, fingerprint="f00d")), verdict(state(), failing())
    one = verdict(state(), failing(failed=1, jobs=1, letters=1, fingerprint="f00d"))
    few = verdict(state(), failing(failed=16, jobs=1_783, common="customer_id 7, 27, 47"))
    most = verdict(state(), failing(failed=996, jobs=1_000))
    down = verdict(state(), failing(actor="hook", host="acme.example", fact="answered 500", down=True))

    assert found.sentence == "Half of report's jobs failed with KeyError: 50 of 100 in the last 5 min, 9 gave up."
    href = "/admin/switchyard_dead_letters/deadletter/?fingerprint=f00d"
    assert pressed(found) == ("Triage 9 dead letters of report", href)
    assert alone.button.href == "/admin/switchyard_jobs/job/?failures=1&actor=report&since=5m"
    assert one.sentence == "1 job of report gave up in the last 10 min with KeyError."
    assert few.sentence == (
        "Less than 1 % of report's jobs failed with KeyError: 16 of 1,783 in the last 5 min; only customer_id 7, 27, "
        "47: all of theirs."
    )
    assert most.sentence.startswith("99 % of report's jobs")
    said = "acme.example is down for hook (answered 500): 50 of 100 jobs failed in the last 5 min."
    assert (down.label, down.sentence) == ("Host down", said)


def test_a_fault_that_has_ended_is_told_in_the_past_and_below_all_that_is_present():
    then = datetime.now(UTC) - timedelta(minutes=3)
    ended = failing(actor="old", letters=28, first_at=then, last_at=then)
    behind = Finding("history", "behind", "warning", "the oldest jobs that ended wait 2 min 00 s to be written")
    alerts = Finding("alerts", "open", "warning", "1 critical alert is not acknowledged")
    found, beside = verdict(state(), ended, failing(failed=6, jobs=12)), verdict(state(), ended, behind, alerts)

    assert found.sentence.startswith("Half of report's jobs failed")
    assert "of old failed with KeyError in the last 5 min, the last at" in found.also[0]
    assert "none since, for 3 min" in found.also[0]
    assert [each.label for each in beside.findings] == ["History", "Open alerts", "Failed"]


def test_letters_that_a_failing_actor_has_are_told_once():
    mine = failing(letters=9, fingerprint="f00d")

    assert verdict(state(), mine, open_letters=9).also == ()
    assert verdict(state(), mine, open_letters=10).also == ("1 more dead letter waits to be triaged.",)
    assert diagnose(facts(state()), [mine], 10, settled_letters=9).also == (), "it may be of the same cause"
    assert verdict(state(), mine, open_letters=10).facts[3] == ("10", "dead letters to triage")


def test_worst_finding_leads_and_the_others_follow():
    now = state(LATE, pool("mail", busy=4), down("hooks"))
    found = verdict(now, failing(actor="hook", queue="hooks"))

    assert found.label == "Late"
    also = sorted(sentence.split(":")[0] for sentence in found.also)
    assert also == ["Half of hook's jobs failed with KeyError", "No pool serves hooks"]


def silent_pool(silent_ms: int, **changes: object) -> PoolState:
    """Return mail's pool with a child that answers nothing while it runs the job 1."""
    child = SilentChild(24_636, 1, silent_ms, {"1": now_ms()})
    return pool("mail", reports=(PoolReport("mail", "h", 7, "threads", 4, 1, 0, 0, "up", silent=[child]),), **changes)


def test_a_child_that_answers_nothing_comes_before_what_is_late_by_it_and_one_of_many_is_no_cause():
    now = facts(state(LATE, silent_pool(8_400, busy=1)), [running("parse_address", "mail")])
    found, alone = diagnose(now, (), 0), diagnose(facts(state(None, silent_pool(5_000))), (), 0)
    many = diagnose(facts(state(LATE, silent_pool(5_000, slots=12, busy=1))), (), 0)

    said = "hild 24636 of mail has answered nothing for 8 s; it runs parse_address"
    assert (found.level, found.label, found.sentence) == ("bad", "Child silent", f"C{said}.")
    assert f"because c{said}; 64 jobs wait" in found.also[0] and "free slots" not in found.also[0]
    assert pressed(found) == ("Show child 24636 of mail", "/admin/operations/workers/#mail:h:7")
    said = "Child 24636 of mail has answered nothing for 5 s; it runs 1 job."
    assert (alone.level, alone.sentence) == ("warn", said)
    assert "no start was seen yet in its free slots" in many.also[0]


def test_a_queue_that_works_off_what_waited_catches_up_though_slots_are_free(monkeypatch):
    monkeypatch.setattr(lateness, "lately", lambda _: Rates(2.0, 3.3, 3.3, 5.0))
    resumed = verdict(state(LATE, pool("mail", busy=1, slots=12)))
    monkeypatch.setattr(lateness, "lately", lambda _: Rates(2.0, 10.0, 10.0, 5.0))
    found = verdict(state(LATE, pool("mail", busy=11, slots=12)))

    assert (found.level, found.label) == ("warn", "Catching up")
    assert all("because it works off what has waited; 64 jobs wait" in each.sentence for each in (found, resumed))
    assert found.sentence.endswith("; empty in about 8.0 s.")
    assert "reach the broker" not in resumed.then


QUEUE = {SUCCEEDED: 240, WAITS: 240, RUNS + 8: 240, RUN_MS: 240_000}


def row(*, waiting: int = 0, slots: int = 2, busy: int | None = None) -> Row:
    status, taken = RowStatus("Late", "bad"), slots if busy is None else busy
    return Row("mail", "queue", "", "open", status, queue="mail", waiting=waiting, slots=slots, busy=taken)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Counts of the last two minutes, and what is usual: without a broker."""
    known: dict[str, Any] = {"q:mail": QUEUE, "a:export": {SUCCEEDED: 4, WAITS + 3: 4, RUNS + 11: 4}}
    monkeypatch.setattr(diagnosis, "_window", lambda: known)
    monkeypatch.setattr(diagnosis, "_usual_ms", lambda actor: known.get(f"usual {actor}"))
    return known


def found(*named: tuple[str, str], word: str = "", actor: str = "") -> list[Any]:
    findings = [
        Finding(*name.split(".", 1), "warning", f"{name} is so", next="a step", subject=of, word=word, actor=actor)
        for name, of in named
    ]
    return ranked(findings)


@pytest.mark.usefixtures("counted")
def test_what_explains_most_comes_first_and_jobs_that_fail_before_slower_ones():
    everything = found(
        ("actors.leaking", "mail"), ("queues.retrying", "other"), ("queues.late", "default"), ("queues.limited", "x"),
        ("actors.silent", "urgent"), ("actors.slower", "default"), ("actors.failing", "urgent"), ("pools.down", "y"),
    )  # fmt: skip

    told = diagnosis.diagnose(everything, {}, {})

    expected = ["nothing_dispatches", "failing", "slower", "silent", "limit", "retry_storm", "leak"]
    assert [each.cause for each in told] == expected, "late follows from slower"
    assert [each.confidence for each in told[:3]] == [0.95, 0.9, 0.8]
    both = found(("actors.slower", "webhook"), ("actors.failing", "default"))

    assert [each.finding.name for each in both] == ["actors.failing", "actors.slower"]
    assert [each.cause for each in diagnosis.diagnose(both, {}, {})] == ["failing", "slower"]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("word", "cause"), [("Blocked", "wrong_queue"), ("Flooded", "flood"), ("", "too_few_slots")])
def test_a_late_queue_has_the_cause_of_its_label(word, cause):
    [told] = diagnosis.diagnose(found(("queues.late", "mail"), word=word), {}, {})

    assert told.cause == cause
    assert (
        told.evidence
        == "Last 2 min: mail 240 attempts ended, 0 failed, half ran at most 1.3 s, half waited at most 5 ms."
    )


@pytest.mark.usefixtures("counted")
def test_too_few_slots_are_told_with_the_number_that_would_do_and_free_ones_are_enough():
    late = {"mail": row(waiting=600)}

    [told] = diagnosis.diagnose(found(("queues.late", "mail")), late, {})

    assert told.sentence == "queues.late is so; about 12 slots would do, 2 are there."
    assert slots_needed(late["mail"], {}, 1_000) is None
    assert slots_needed(row(slots=5), QUEUE, 1_000) is None, "as many are there"
    assert slots_needed(row(slots=2), QUEUE, 10_000) == 3, "two would be busy all the time"
    [told] = diagnosis.diagnose(found(("queues.late", "mail")), {"mail": row(waiting=600, slots=4, busy=1)}, {})

    assert (told.cause, told.sentence) == ("nothing_dispatches", "queues.late is so.")
    [told] = diagnosis.diagnose(found(("queues.ends_late", "mail")), {"mail": row(waiting=600, slots=4, busy=1)}, {})
    assert (told.cause, told.sentence) == ("ends_late", "queues.ends_late is so."), "its jobs start"


def test_jobs_that_usually_run_much_longer_than_the_others_stand_before_them(counted):
    late, holders = {"mail": row(waiting=600)}, {"mail": "export"}

    counted["usual a:export"] = 30_000.0
    [told] = diagnosis.diagnose(found(("queues.late", "mail")), late, holders)
    counted["usual a:export"] = 900.0
    [other] = diagnosis.diagnose(found(("queues.late", "mail")), late, holders)

    assert (told.cause, told.actor, other.cause) == ("head_of_line", "export", "too_few_slots")
    assert told.evidence.startswith("Last 2 min: export 4 attempts ended, 0 failed, half ran")


@pytest.mark.usefixtures("counted")
def test_every_finding_of_a_cause_has_a_rank():
    named = {name.partition(":")[0] for cause in PRECEDENCE for name in cause.findings}

    ranks = {rank.name for rank in RANKS}
    assert {name for name in named - ranks if f"{name.partition('.')[0]}.*" not in ranks} == set()


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("name", "cause"),
    [("queues.undeclared", "no_queue"), ("queues.lapsed", "stuck"), ("scheduler.down", "no_scheduler")],
)
def test_a_part_that_stands_still_is_not_told_as_if_nothing_started(name, cause):
    [told] = diagnosis.diagnose(found((name, "renamed")), {}, {})

    assert told.cause == cause


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("kind", PRECEDENCE, ids=lambda kind: kind.name)
def test_the_table_of_causes_names_the_labels_of_each(kind):
    [row] = [line for line in read("docs/reference/verdicts.md").splitlines() if line.startswith(f"| `{kind.name}` |")]
    labels = {
        name.partition(":")[2] or next(rank.label for rank in RANKS if fnmatchcase(name, rank.name))
        for name in kind.findings
    }

    assert [label for label in labels - {"Database"} if f"*{label}*" not in row] == []
    assert row.endswith(f"| {kind.confidence * 100:.0f} % |")


@pytest.mark.usefixtures("counted")
def test_what_is_less_than_sure_is_said_so():
    told = diagnosis.Diagnosis("slower", "Slower", "It is.", "", 0.5, "", "", "", "")

    assert told.said == "Most likely: It is."
    assert Usual("now").run_ms is None
