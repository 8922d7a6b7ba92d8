"""Late samples of a queue, and promises that it breaks too often: a moment past a short promise is no alarm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.stores.yard_facts import BUCKET_MS, MINUTE_MS, WAITS, Counts
from switchyard.operations.findings import lateness
from switchyard.operations.findings.lateness import SAMPLED, LateSamples
from switchyard.operations.findings.own_past import burns, late, look_at_promises
from switchyard.operations.rows import Row, RowStatus

NOW = 1_767_571_200_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(lateness, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_a_queue_that_is_late_in_two_of_three_samples_is_late(clock: SimpleNamespace) -> None:
    samples, said = LateSamples(), []
    for names in (["urgent"], [], ["urgent"], ["urgent"], [], []):
        said.append(bool(samples.note(names)))
        clock.s += 2

    assert said == [False, False, True, True, False, False]


def test_readings_at_one_moment_are_one_sample(clock: SimpleNamespace) -> None:
    samples = LateSamples()

    assert [bool(samples.note(["urgent"])) for _ in range(3)] == [False, False, False]


def test_a_sample_of_long_ago_does_not_count(clock: SimpleNamespace) -> None:
    samples = LateSamples()
    samples.note(["urgent"])
    clock.s += 60

    assert samples.note(["urgent"]) == frozenset()


@pytest.mark.parametrize(("age_ms", "code"), [(1_010, "just_late"), (1_990, "just_late"), (2_000, "late")])
def test_a_first_reading_counts_the_time_past_the_promise_not_the_whole_wait(
    monkeypatch: pytest.MonkeyPatch, age_ms: int, code: str
) -> None:
    """The promise of ``default`` is 1 s."""
    monkeypatch.setattr(lateness, "_late", lambda row, facts: SimpleNamespace(code="late"))
    status = RowStatus("Late", "warn")
    row = Row(
        "default", "queue", "", "open", status, queue="default", waiting=3, oldest_age_ms=age_ms, ratio=age_ms / 1_000
    )
    SAMPLED.clear()

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
def test_starts_are_late_that_certainly_waited_for_longer(counts: Counts, promise_ms: int, count: int) -> None:
    assert late(counts, promise_ms) == count


@pytest.mark.parametrize(
    ("counts", "bad"), [(waited(85, 15), True), (waited(86, 14), False), (waited(40, 9), False), ({}, False)]
)
def test_a_seventh_of_the_starts_burns_ten_at_least(counts: Counts, bad: bool) -> None:
    assert burns(counts, 1_000) is bad


LATE = "default is late again and again: 330 of 1,100 jobs of the last hour started later than 1 s"


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
def test_a_queue_is_late_again_and_again(hour: list[Counts], recent: Counts, ago: int, said: list[str]) -> None:
    def minutes(subject: str, since_ms: int, until_ms: int) -> dict[int, Counts]:
        return {since_ms + n * MINUTE_MS: counts for n, counts in enumerate(hour)} if subject == "q:default" else {}

    store: Any = SimpleNamespace(minutes=minutes)
    buckets = [(NOW - n * BUCKET_MS, {"q:default": recent} if n == ago else {}) for n in range(90, 0, -1)]

    found = list(look_at_promises(store, buckets, NOW))

    assert [each.seen for each in found] == said
    assert {each.name for each in found} <= {"queues.burning"}
