"""Actors are judged by their own past, from facts as they are recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dramatiq
import msgspec
import pytest
import redis

from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.yard_facts import (
    BUCKET_MS,
    DEPTH,
    HOUR_MS,
    LATER,
    MINUTE_MS,
    RETRIED,
    RUN_MS,
    RUNS,
    SENT,
    SPAN_MS,
    SUCCEEDED,
    WAITS,
    Counts,
    bucket_of,
    span_of,
)
from switchyard.history.fact_keeper import store_hour
from switchyard.operations import past
from switchyard.operations.findings import own_past
from switchyard.operations.findings.finding import Finding
from switchyard.operations.past import PAST, same_hours, usual_at
from tests.integration.history.rows import job_row

pytestmark = pytest.mark.django_db
BANK, OTHER = "a:call_bank", "a:other"
# Classes of runs: of 40 to 80 ms, and of 20 to 41 s.
QUICK, LONG = RUNS + 4, RUNS + 13


def runs(quick: int = 0, long: int = 0, **more: int) -> dict[int, int]:
    found = {QUICK: quick, LONG: long, SUCCEEDED: quick + long, WAITS: quick + long}
    found |= {RUN_MS: quick * 60 + long * 30_000, SENT: more.pop("sent", quick + long)}
    return {code: count for code, count in found.items() if count} | {int(code[1:]): n for code, n in more.items()}


@dataclass
class Recorded:
    """Facts that a test writes as they would have been recorded."""

    valkey: redis.Redis
    now: int
    spans: dict[int, dict[str, dict[int, Counts]]] = field(default_factory=dict)

    def bucket(self, ago_s: int, subject: str, counts: Counts) -> None:
        key = Keys().facts_bucket(bucket_of(self.now - ago_s * 1_000))
        self.valkey.hset(key, mapping={f"{code} {subject}": count for code, count in counts.items()})

    def sampled(self) -> None:
        """Add the samples of a queue to the buckets of the last 15 minutes."""
        for ago_s in range(0, 900, 10):
            self.bucket(ago_s, "q:default", {DEPTH: 1})

    def minutes(self, subject: str, counts: Counts, *, since_min: int = 180, until_min: int = 0) -> None:
        """Put equal minutes into the spans from some minutes ago to others."""
        for ago in range(until_min, since_min):
            at = (self.now - ago * MINUTE_MS) // MINUTE_MS * MINUTE_MS
            of_subject = self.spans.setdefault(span_of(at), {}).setdefault(subject, {})
            of_subject[(at - span_of(at)) // MINUTE_MS] = counts
        for span, subjects in self.spans.items():
            packed = {name: msgspec.msgpack.encode(of) for name, of in subjects.items()}
            self.valkey.hset(Keys().facts_span(span), mapping=packed)

    def days(self, subject: str, counts: Counts, *, days: int = 5) -> None:
        for hour in same_hours(self.now // HOUR_MS)[:days]:
            store_hour(hour, {subject: counts})


@pytest.fixture
def recorded(facilities: Facilities, valkey: redis.Redis, monkeypatch: Any) -> Iterator[Recorded]:
    dramatiq.actor(lambda: None, actor_name="call_bank", queue_name="default")
    monkeypatch.setattr(own_past, "running_or_none", list)
    PAST.clear()
    facilities.facts.forget()
    yield Recorded(valkey, facilities.facts.server_ms())
    PAST.clear()


@pytest.fixture
def found(recorded: Recorded) -> Callable[[], list[Finding]]:
    return lambda: list(own_past.look())


@pytest.mark.parametrize(
    ("counts", "ms"),
    [
        ({RUNS + 4: 99, RUNS + 9: 1, RUN_MS: 99 * 51 + 2_000}, 51),  # a rare long one is no part of it
        ({RUNS + 4: 100, RUN_MS: 5_100}, 51),
        ({RUNS + 3: 50, RUNS + 4: 50, RUN_MS: 4_100}, 41),
        ({RUNS + 4: 60, RUNS + 9: 40, RUN_MS: 60 * 51 + 80_000}, 73),  # interpolated within its class
        ({}, None),
    ],
)
def test_the_middle_of_runs_that_are_alike_is_their_mean(counts: Counts, ms: float | None) -> None:
    found = past.median_ms(counts, RUNS)

    assert (None if found is None else int(found)) == ms


def test_runs_that_take_longer_than_at_this_hour_of_past_days_are_slower(recorded: Recorded, found: Any) -> None:
    recorded.days(BANK, runs(quick=6_000))
    for ago_s in range(300, 90, -10):
        recorded.bucket(ago_s, BANK, runs(quick=20))
    for ago_s in range(90, 0, -10):
        recorded.bucket(ago_s, BANK, runs(long=3))

    [finding] = found()

    assert (finding.name, finding.actor, finding.subject) == ("actors.slower", "call_bank", "default")
    said = r"call_bank takes 30 s, usually 60 ms at this hour, since ..:..:.. UTC: (\d+) of (\d+) runs"
    told = re.fullmatch(said, finding.seen)
    assert told is not None and told[1] == told[2] == str(9 * 3)  # all of them, not those of the window alone
    assert finding.next == "manage.py switchyard actors show call_bank"


@pytest.mark.parametrize(("run_ms", "told"), [((60, 60), 0), ((60,), 1), ((60, 30_000, 60), 1)])
def test_runs_are_slower_no_more_once_the_newest_take_as_long_as_usual(
    recorded: Recorded, found: Any, run_ms: tuple[int, ...], told: int
) -> None:
    recorded.days(BANK, runs(quick=6_000))
    for ago_s in range(90, 0, -10):
        recorded.bucket(ago_s, BANK, runs(long=3))
    for ago, each in enumerate(run_ms):
        job_row(actor="call_bank", state="succeeded", finished_at=recorded.now - 15_000 - ago, run_ms=each)
    job_row(actor="call_bank", state="succeeded", finished_at=recorded.now - 60_000, run_ms=60)  # before

    assert [each.name for each in found()] == ["actors.slower"] * told


def test_jobs_that_still_run_are_slow_before_one_has_ended(recorded: Recorded, found: Any, monkeypatch: Any) -> None:
    recorded.minutes(BANK, runs(quick=10))
    held = Job(id="1", state="running", actor="call_bank", queue="default", started_at=recorded.now - 25_000)
    monkeypatch.setattr(own_past, "running_or_none", lambda: [held] * 8)

    [finding] = found()

    assert finding.seen.startswith("call_bank has run for 25 s and goes on, usually 60 ms in the hours before, since ")
    assert finding.seen.endswith(": 8 of 8 runs")

    recorded.bucket(0, BANK, runs(long=4, quick=2))  # of 30 s, which those that run have not reached
    assert found()[0].seen.startswith("call_bank takes 30 s, usually 60 ms in the hours before, since ")


@pytest.mark.parametrize(
    ("usual", "now"),
    [
        (runs(quick=100), runs(quick=30, long=1)),  # an eighth is slow at most
        (runs(quick=50, long=50), runs(long=4)),  # long runs are usual
        (runs(quick=9), runs(long=9)),  # nothing is usual of so few
        ({}, runs(long=9)),
    ],
)
def test_slow_runs_that_may_be_chance_are_not_told(recorded: Recorded, found: Any, usual: Any, now: Any) -> None:
    recorded.days(BANK, usual, days=1 if sum(usual.values()) < 2_000 else 4)
    recorded.days(OTHER, runs(quick=100), days=4)
    recorded.bucket(20, BANK, now)
    recorded.bucket(10, BANK, now)

    assert found() == []


@pytest.mark.parametrize(
    ("slow", "newest"),
    [
        (runs(long=20), runs(quick=20, long=1)),  # it is over
        (runs(long=20) | {SUCCEEDED: 0, RETRIED: 20}, runs(long=20) | {SUCCEEDED: 0, RETRIED: 20}),  # Failing is said
    ],
)
def test_slow_runs_that_are_over_or_failed_are_not_told(recorded: Recorded, found: Any, slow: Any, newest: Any) -> None:
    recorded.days(BANK, runs(quick=6_000))
    for ago_s in range(120, 40, -10):
        recorded.bucket(ago_s, BANK, slow)
    for ago_s in range(40, 0, -10):
        recorded.bucket(ago_s, BANK, newest)

    assert found() == []


def test_a_producer_that_stopped_is_silent(recorded: Recorded, found: Any) -> None:
    recorded.days(BANK, runs(quick=14_400))
    recorded.minutes(BANK, {SENT: 240}, until_min=4)
    recorded.sampled()
    recorded.bucket(150, BANK, {SENT: 40})

    [finding] = found()

    assert finding.name == "actors.silent"
    assert finding.seen.startswith("nothing sends call_bank: 0 in 2 min")
    assert "usually 240/min at this hour, since " in finding.seen


@pytest.mark.parametrize("why", ["nobody samples", "it pauses", "it is seldom sent", "it is night"])
def test_a_producer_that_may_only_pause_is_not_silent(recorded: Recorded, found: Any, why: str) -> None:
    recorded.days(BANK, runs(quick=120 if why == "it is seldom sent" else 14_400))
    for hour in range(18):
        if why != "it is night":
            recorded.minutes(BANK, {SENT: 240}, since_min=hour * 10 + 10, until_min=hour * 10 + (4 if hour else 3))
    if why != "it pauses" and why != "it is night":
        recorded.minutes(BANK, {SENT: 240}, until_min=4)
    if why != "nobody samples":
        recorded.sampled()
    recorded.bucket(150, BANK, {SENT: 40})

    assert found() == []


def test_jobs_that_are_sent_for_much_later_than_usual_are_told(recorded: Recorded, found: Any) -> None:
    recorded.days(BANK, runs(quick=600))
    recorded.sampled()
    recorded.bucket(60, BANK, {LATER + 15: 12, SENT: 1})
    recorded.bucket(60, "a:other", {LATER + 15: 12})

    [finding] = found()

    assert finding.name == "actors.later"
    assert "is sent for 22 days" in finding.seen
    assert "from now or later, usually at once at this hour: 12 of 13 sends in the last 2 min" in finding.seen


def test_jobs_that_are_usually_sent_for_later_are_not_told(recorded: Recorded, found: Any) -> None:
    recorded.days(BANK, runs(quick=600, sent=100, _79=500))
    recorded.sampled()
    recorded.bucket(60, BANK, {LATER + 15: 12})

    assert found() == []


def test_one_bad_day_changes_nothing_of_what_is_usual(recorded: Recorded) -> None:
    hours = same_hours(recorded.now // HOUR_MS)
    for hour in hours[:5]:
        store_hour(hour, {BANK: runs(quick=600)})
    store_hour(hours[2], {BANK: runs(long=6_000, _2=3_000)})

    usual = usual_at(recorded.now)[BANK]

    assert 40 <= (usual.run_ms or 0) <= 80
    assert (usual.sent_a_minute, usual.failing) == (10, 0)


def test_a_young_yard_is_compared_with_its_last_hours(recorded: Recorded) -> None:
    assert usual_at(recorded.now) == {}
    recorded.minutes(BANK, runs(quick=12))

    usual = usual_at(recorded.now)[BANK]

    assert (usual.basis, usual.sent_a_minute) == ("in the hours before", 12)


def test_a_yard_of_half_an_hour_knows_what_its_runs_take_and_no_rates(recorded: Recorded) -> None:
    recorded.minutes(BANK, runs(quick=12), since_min=35)

    usual = usual_at(recorded.now)[BANK]

    assert 40 <= (usual.run_ms or 0) <= 80
    assert (usual.basis, usual.sent_a_minute, usual.failing, usual.later) == ("before", None, None, ())


def test_weekends_are_compared_with_weekends() -> None:
    saturday = 495_000 + (5 * 24 - (495_000 - 96) % 168) % 168  # the epoch was a Thursday
    for hour in (saturday, saturday + 2 * 24):
        assert all(past._weekend(each) == past._weekend(hour) for each in same_hours(hour))
        assert same_hours(hour)


def test_evidence_grows_with_runs_and_is_none_for_what_is_usual() -> None:
    assert own_past.evidence(3, 100) == own_past.evidence(0, 0) == 0
    assert own_past.evidence(4, 4) < own_past.EVIDENCE < own_past.evidence(8, 8)
    assert SPAN_MS % BUCKET_MS == 0
    assert yard_facts.sent({SENT: 1, LATER: 2}) == 3
