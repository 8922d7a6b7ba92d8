from __future__ import annotations

from dataclasses import replace

import pytest

from switchyard.actors.figures import ActorHistory, EndedRow, HistoryCount, HistoryFailure, _dead_since
from switchyard.actors.views import Judgement, held_back, of
from switchyard.broker.clock import datetime_of
from switchyard.broker.shapes import ActorPause
from switchyard.jobs.pauses import PausedActor

HOUR_MS = 3_600_000


def count(jobs: int, *, dead: int = 0, median_ms: int | None = 100) -> HistoryCount:
    outcomes = (("succeeded", jobs - dead), *((("dead", dead),) if dead else ()))
    run_ms = None if median_ms is None else (median_ms, 2 * median_ms)
    return HistoryCount(HOUR_MS, cut=False, jobs=jobs, outcomes=outcomes, run_ms=run_ms, wait_ms=None)


def failure(exception: str) -> HistoryFailure:
    return HistoryFailure(exception, exception, "text", 1, datetime_of(0), datetime_of(1))


def history(hour: HistoryCount, day: HistoryCount | None = None, *exceptions: str) -> ActorHistory:
    return ActorHistory(hour, day or hour, tuple(map(failure, exceptions)))


@pytest.mark.parametrize(
    ("ended", "word", "level", "sentence"),
    [
        (None, "Unknown", "", "How its jobs ended is unknown: the database does not answer."),
        (history(count(0)), "Quiet", "", "None of its jobs ended in the last day."),
        (history(count(0), count(1)), "Quiet", "", "None of its jobs ended in the last hour; 1 job in the last day."),
        (
            history(count(50)),
            "Healthy", "ok", "50 jobs ended in the last hour, none gave up, 100 ms each at the median.",
        ),
        (
            history(count(1, median_ms=None)),
            "Healthy", "ok", "1 job ended in the last hour, none gave up.",
        ),
        (
            history(count(100, dead=5), None, "KeyError"),
            "Some fail", "warn", "5 jobs of 100 that ended in the last hour gave up, all with KeyError.",
        ),
        (
            history(count(100, dead=6), None, "KeyError", "Timeout"),
            "Failing", "bad", "6 jobs of 100 that ended in the last hour gave up, of 2 causes.",
        ),
        (
            history(count(20, dead=20)),
            "Failing", "bad", "20 jobs of 20 that ended in the last hour gave up.",
        ),
    ],
)  # fmt: skip
def test_an_actor_is_judged_by_its_last_hour(ended: ActorHistory | None, word: str, level: str, sentence: str) -> None:
    found = of(ended)

    assert (found.word, found.level, found.sentence) == (word, level, sentence)


def test_a_release_is_named_where_it_alone_fails() -> None:
    ended = replace(history(count(100, dead=41), None, "KeyError"), dead_since="2026.11.3")

    assert of(ended).sentence.endswith("gave up, all with KeyError; since release 2026.11.3, before it none did.")


def row(at: int, state: str, release: str) -> EndedRow:
    return EndedRow(at, state, None, None, None, None, "", "", release)


@pytest.mark.parametrize(
    ("rows", "release"),
    [
        ([row(3, "dead", "b"), row(2, "succeeded", "b"), row(1, "succeeded", "a")], "b"),
        ([row(3, "dead", "b"), row(2, "dead", "a")], ""),
        ([row(3, "dead", "b"), row(1, "succeeded", "b")], ""),
        ([row(3, "succeeded", "a"), row(1, "dead", "b")], ""),
        ([row(3, "dead", ""), row(1, "succeeded", "a")], ""),
        ([row(1, "succeeded", "a")], ""),
    ],
)
def test_a_release_fails_alone_after_jobs_of_another_one(rows: list[EndedRow], release: str) -> None:
    assert _dead_since(rows) == release


def test_an_actor_whose_circuit_is_open_or_that_is_paused_is_not_called_healthy() -> None:
    healthy, failing = Judgement("Healthy", "ok", "fine"), Judgement("Failing", "bad", "no")
    open_ = PausedActor(ActorPause(1, 0, 1, "circuit crm", calls={"sync": 1}, times=1))
    paused, by_value = PausedActor(ActorPause(1, 0, 1, "sync")), PausedActor(ActorPause(1, 0, 1, "sync", "of", 1, 7))

    assert held_back(healthy, [open_]) == Judgement("Circuit open", "warn", "fine")
    assert held_back(healthy, [paused]) == Judgement("Paused", "warn", "fine")
    assert held_back(healthy, [by_value]) == healthy
    assert held_back(failing, [open_]) == failing
