"""A moment past a short promise is no alarm; most of the last samples are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from switchyard.operations.findings import lateness
from switchyard.operations.findings.lateness import SAMPLED, LateSamples
from switchyard.operations.rows import Row, RowStatus


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(lateness, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_a_queue_that_is_late_in_two_of_three_samples_is_late(clock: SimpleNamespace) -> None:
    samples, said = LateSamples(), []
    for late in (["urgent"], [], ["urgent"], ["urgent"], [], []):
        said.append(bool(samples.note(late)))
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
