"""Findings of queues: circuits, lapses, floods, late samples, promises broken too often, the objective of an end."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import InvalidDeclaration
from switchyard.broker.shapes import ActorPause, LaneStats, OpenCircuit, QueueStats
from switchyard.broker.stores.yard_facts import BUCKET_MS, MINUTE_MS, WAITS, Counts
from switchyard.operations.findings import examine, lateness, queues
from switchyard.operations.findings import facts as floods
from switchyard.operations.findings.facts import QueueFacts, Snapshot
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.lateness import LateSamples
from switchyard.operations.findings.own_past import burns, late, look_at_promises
from switchyard.operations.overview import Verdict, diagnose
from switchyard.operations.queries import YardState
from switchyard.operations.rows import Row, RowStatus, yard_rows
from tests.unit.operations import yards
from tests.unit.operations.yards import facts, lane, pool, state

pytestmark = pytest.mark.usefixtures("small_yard")
MAIL, HOOKS = yards.YARD.queues
YARD = replace(yards.YARD, queues=(replace(MAIL, done_objective_ms=2_000), HOOKS))


def circuit(**changes: object) -> OpenCircuit:
    """Return the circuit of crm, open for 40 s, for which three jobs wait."""
    pause = ActorPause(now_ms() - 40_500, now_ms() + 90_500, 1, "circuit crm", calls={"sync": 1}, times=4)
    return OpenCircuit(msgspec.structs.replace(pause, **changes), 3)  # type: ignore[arg-type]


def test_a_circuit_that_a_person_opened_is_told_as_his_act_until_a_probe_fails():
    opened = queues.circuit_open("mail", "crm", [circuit(by="ada", times=1, reason="they update")])
    failed = queues.circuit_open("mail", "crm", [circuit(by="ada", times=2, reason="they update")])

    assert opened.name == "queues.paused"
    assert re.fullmatch(r"ada opened the circuit of crm in mail \d+ s ago \(they update\); 3 jobs wait", opened.seen)
    assert opened.then.startswith("One job probes it in 1 min")
    assert opened.next == "manage.py switchyard actors resume sync"
    assert failed.seen.startswith("crm is down: its circuit is open")


def test_an_open_circuit_and_the_calls_before_it_are_one_finding(monkeypatch):
    said = "crm is down: 5 of 5 calls failed"
    calls = Finding("actors", "dependency_down", "warning", said, subject="mail", actor="sync")
    now = state()
    stats = tuple(
        msgspec.structs.replace(each, circuits=(circuit(),)) if each.queue == "mail" else each for each in now.queues
    )

    found = diagnose(facts(replace(now, queues=stats)), [calls], 0).findings
    by_value = queues.circuit_open("mail", "crm", [circuit(argument="host", value="eu")])
    both = [queues.circuit_open(queue, "crm", [circuit()]) for queue in ("mail", "slow")]
    monkeypatch.setattr(examine, "checks", lambda: (examine.Check(queues.GROUP, lambda: [*both, calls], 3.0),))

    assert [each.finding.name for each in found] == ["actors.dependency_down"]
    assert found[0].sentence.startswith("crm is down: its circuit is open in mail since")
    assert (by_value.name, examine.examine()) == ("queues.circuit_open", both)


@pytest.mark.parametrize(("messages", "said"), [(0, []), (2, ["lapsed"])])
def test_a_lease_that_expired_without_messages_is_no_fault(messages, said):
    stats = QueueStats("mail", lane("mail"), LaneStats("mail-retry", 0, 0, 0, None), 0, 0)
    held = QueueFacts(stats, {"w": 9.0}, messages, {}, {}, {}, ())

    assert [each.code for each in queues.look(Snapshot(now_ms(), {"mail": held}, [], state()))] == said


@pytest.mark.parametrize(
    ("others", "said"),
    [(100, "100 of the next 100 are customer_id=7"), (0, "")],
    ids=["other actors wait behind them", "nothing else waits"],
)
def test_the_batch_of_one_customer_before_jobs_of_other_actors_is_a_flood(others, said, monkeypatch):
    actor = SimpleNamespace(fn=lambda customer_id: None, options={}, actor_name="import_row")
    monkeypatch.setattr(floods.dramatiq, "get_broker", lambda: SimpleNamespace(actors={"import_row": actor}))
    monkeypatch.setattr(floods, "shown_arguments", lambda name, args, kwargs: kwargs)
    first = [message("import_row", customer_id=7) for _ in range(100)]
    last = [message("thank") for _ in range(others)] or first

    def look(family: object, lane: str, place: str, *, cursor: int, limit: int) -> object:
        return SimpleNamespace(items=[SimpleNamespace(message=each) for each in (last if cursor else first)])

    monkeypatch.setattr(floods, "families", lambda names: [None])
    monkeypatch.setattr(floods, "look", look)
    [row] = [
        row for row in facts(state(lane("mail", 300, age_ms=9_000), pool("mail", busy=4))).queue_rows
        if row.queue == "mail"
    ]  # fmt: skip

    found = floods.flood_of(row)

    assert (found.text if found else "") == said


def message(actor: str, **arguments: Any) -> Message[Any]:
    return Message("mail", actor, (), arguments, {})


def held_for(held_ms: int | None, *, age_ms: int | None = None, paused: bool = False) -> YardState:
    """Return the yard while mail holds a message that was ready so long ago."""
    lane = yards.lane("mail", waiting=1 if age_ms else 0, running=1, age_ms=age_ms)
    now = yards.state(lane, yards.pool("mail", busy=1), paused=paused)
    mail, hooks = now.queues
    return replace(now, queues=(msgspec.structs.replace(mail, oldest_held_age_ms=held_ms), hooks))


def row(now: YardState) -> Row:
    return yard_rows(YARD, now)[0]


def verdict(now: YardState) -> Verdict:
    return diagnose(yards.facts(now, yard=YARD), (), 0)


@pytest.mark.parametrize(
    ("now", "word", "level"),
    [
        (held_for(None), "On time", "ok"),
        (held_for(1_900), "On time", "ok"),
        (held_for(4_200), "Late", "warn"),
        (held_for(100, age_ms=900), "On time", "ok"),
        (held_for(20_000), "Late", "bad"),
        (held_for(20_000, paused=True), "Paused", "warn"),
    ],
)
def test_state_is_that_of_the_oldest_unfinished_message(now, word, level):
    assert (row(now).state.word, row(now).state.level) == (word, level)


def test_jobs_that_end_late_are_a_verdict_of_their_own_and_an_end_before_the_start_cannot_be_promised():
    found, starts_late = verdict(held_for(4_200)), verdict(held_for(9_000, age_ms=9_000))

    late = "mail ends its jobs late: the oldest is 2.1 × behind the promise to end, 4.2 s after it was ready"
    assert found.sentence == f"{late}; what waits now is in time."
    assert found.facts[0] == ("2.1 ×", "its promise to end, the furthest: mail, 4.2 s")
    assert row(held_for(4_200)).state.detail == "2.1 × its promise to end"
    assert starts_late.sentence.startswith("mail is 9.0 × behind its promise, because ")
    assert starts_late.also == ()
    with pytest.raises(InvalidDeclaration, match=r"done_objective_ms is 999; write milliseconds, 1000 or more"):
        replace(MAIL, done_objective_ms=999)


NOW = 1_767_571_200_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(lateness, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_a_queue_that_is_late_in_two_of_three_samples_is_late(clock):
    samples, said = LateSamples(), []
    for names in (["urgent"], [], ["urgent"], ["urgent"], [], []):
        said.append(bool(samples.note(names)))
        clock.s += 2

    assert said == [False, False, True, True, False, False]


def test_readings_at_one_moment_are_one_sample_and_one_of_long_ago_does_not_count(clock):
    samples = LateSamples()

    assert [bool(samples.note(["urgent"])) for _ in range(3)] == [False, False, False]
    clock.s += 60
    assert samples.note(["urgent"]) == frozenset()


@pytest.mark.parametrize(("age_ms", "code"), [(1_010, "just_late"), (1_990, "just_late"), (2_000, "late")])
def test_a_first_reading_counts_the_time_past_the_promise_not_the_whole_wait(monkeypatch, age_ms, code):
    monkeypatch.setattr(lateness, "_late", lambda row, facts: SimpleNamespace(code="late"))
    status = RowStatus("Late", "warn")
    row = Row("mail", "queue", "", "open", status, queue="mail", waiting=3, oldest_age_ms=age_ms, ratio=age_ms / 1_000)

    found = list(lateness.look(SimpleNamespace(queue_rows=[row], failing={}, running=[])))  # type: ignore[arg-type]

    assert [each.code for each in found] == [code]


def waited(quick: int, slow: int) -> dict[int, int]:
    """Return starts within 80 ms, and between 1.28 and 2.56 s."""
    return {WAITS + 4: quick, WAITS + 9: slow}


@pytest.mark.parametrize(
    ("counts", "promise_ms", "count"),
    [
        (waited(5, 3), 1_280, 3),
        (waited(5, 3), 1_281, 0),  # some of the class may have been in time
        (waited(5, 3), 40, 8),
        ({}, 1_000, 0),
    ],
)
def test_starts_are_late_that_certainly_waited_for_longer(counts, promise_ms, count):
    assert late(counts, promise_ms) == count


@pytest.mark.parametrize(
    ("counts", "bad"), [(waited(85, 15), True), (waited(86, 14), False), (waited(40, 9), False), ({}, False)]
)
def test_a_seventh_of_the_starts_burns_ten_at_least(counts, bad):
    assert burns(counts, 1_000) is bad


LATE = "mail is late again and again: 330 of 1,100 jobs of the last hour started later than 1 s"
SPELLS = [{}, waited(0, 1), {}, waited(0, 1)]


@pytest.mark.parametrize(
    ("hour", "recent", "ago", "said"),
    [
        ([waited(700, 298), *SPELLS], waited(70, 30), 3, [LATE]),
        ([waited(7_000, 298), *SPELLS], waited(70, 30), 3, []),  # a burst of minutes
        ([waited(700, 298), *SPELLS], waited(70, 3), 3, []),  # it is over
        ([waited(700, 298), *SPELLS], waited(70, 30), 12, []),  # as well, for a minute
        ([waited(700, 300)], waited(70, 30), 3, []),  # once is not again
    ],
)
def test_a_queue_is_late_again_and_again(hour, recent, ago, said):
    def minutes(subject: str, since_ms: int, until_ms: int) -> dict[int, Counts]:
        return {since_ms + n * MINUTE_MS: counts for n, counts in enumerate(hour)} if subject == "q:mail" else {}

    store: Any = SimpleNamespace(minutes=minutes)
    buckets = [(NOW - n * BUCKET_MS, {"q:mail": recent} if n == ago else {}) for n in range(90, 0, -1)]

    found = list(look_at_promises(store, buckets, NOW))

    assert [each.seen for each in found] == said
    assert {each.name for each in found} <= {"queues.burning"}
