"""The judgement of actors, and the orders of their list."""

from dataclasses import replace

import pytest

from switchyard.actors import queries
from switchyard.actors.queries import ActorFacts, ActorHistory, AttemptFigures, EndedRow
from switchyard.actors.views import Judgement, Row, held_back, in_order, of
from switchyard.broker.clock import datetime_of
from switchyard.broker.shapes import ActorPause
from switchyard.broker.stores.yard_facts import CANCELLED, DEAD, RETRIED, RUNS, SUCCEEDED

HOUR_MS = 3_600_000
Lately = list[AttemptFigures]
SLOW, QUICK, BEYOND = {RUNS + 7: 5}, {RUNS + 2: 5}, {RUNS + 18: 5}


def count(jobs: int, *, dead: int = 0, ran: bool = True) -> AttemptFigures:
    """Return an hour; the attempts that were retried are no jobs that ended."""
    counts = {SUCCEEDED: jobs - dead, DEAD: dead, RETRIED: 3, RUNS + 4: jobs if ran else 0}
    return AttemptFigures("last hour", HOUR_MS, counts)


def lately(hour: AttemptFigures, day: AttemptFigures | None = None) -> Lately:
    return [hour, hour, day or hour]


def failed(*exceptions: str) -> ActorHistory:
    moments = datetime_of(0), datetime_of(1)
    return ActorHistory(tuple(queries.FailureGroup(each, each, "text", 1, *moments) for each in exceptions))


@pytest.mark.parametrize(
    ("lately", "ended", "word", "level", "sentence"),
    [
        (None, failed(), "Unknown", "", "How its jobs ended is unknown: the broker does not answer."),
        (lately(count(0)), failed(), "Quiet", "", "None of its jobs ended in the last day."),
        (
            lately(count(0), count(1)), failed(), "Quiet", "",
            "None of its jobs ended in the last hour; 1 job in the last day.",
        ),
        (
            lately(count(50)), None, "Healthy", "ok",
            "50 jobs ended in the last hour, none gave up, 60 ms each at the median.",
        ),
        (lately(count(1, ran=False)), failed(), "Healthy", "ok", "1 job ended in the last hour, none gave up."),
        (
            lately(count(100, dead=5)), failed("KeyError"), "Some fail", "warn",
            "5 jobs of 100 that ended in the last hour gave up, all with KeyError.",
        ),
        (
            lately(count(100, dead=6)), failed("KeyError", "Timeout"), "Failing", "bad",
            "6 jobs of 100 that ended in the last hour gave up, of 2 causes.",
        ),
        (lately(count(20, dead=20)), None, "Failing", "bad", "20 jobs of 20 that ended in the last hour gave up."),
        (
            lately(count(100, dead=41)), replace(failed("KeyError"), dead_since="2026.11.3"), "Failing", "bad",
            "41 jobs of 100 that ended in the last hour gave up, all with KeyError; since release 2026.11.3, before it "
            "none did.",
        ),
    ],
)  # fmt: skip
def test_an_actor_is_judged_by_its_last_hour_with_the_release_that_alone_fails(lately, ended, word, level, sentence):
    assert of(lately, ended) == Judgement(word, level, sentence)


def row(at: int, state: str, release: str) -> EndedRow:
    return EndedRow(at, state, None, None, "", "", release)


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
def test_a_release_fails_alone_after_jobs_of_another_one(rows, release):
    assert queries._dead_since(rows) == release


def test_an_actor_whose_circuit_is_open_or_that_is_paused_is_not_called_healthy():
    healthy, failing = Judgement("Healthy", "ok", "fine"), Judgement("Failing", "bad", "no")
    open_ = ActorPause(1, 0, 1, "circuit crm", calls={"sync": 1}, times=1)
    paused, by_value = ActorPause(1, 0, 1, "sync"), ActorPause(1, 0, 1, "sync", "of", 1, 7)

    assert held_back(healthy, [open_]) == Judgement("Circuit open", "warn", "fine")
    assert held_back(healthy, [paused]) == Judgement("Paused", "warn", "fine")
    assert (held_back(healthy, [by_value]), held_back(failing, [open_])) == (healthy, failing)


def row_with(name: str, counts: dict[int, int] | None) -> Row:
    ran = None if counts is None else AttemptFigures("last day", queries.DAY_MS, counts)
    return ActorFacts(name, "default", (), "m", "m.py:1", "", (), None), ran


ROWS = [
    row_with("c", {SUCCEEDED: 9, **QUICK}),
    row_with("a", None),
    row_with("d", {DEAD: 2, RETRIED: 3, CANCELLED: 4, **BEYOND}),
    row_with("b", {DEAD: 1, SUCCEEDED: 50, **SLOW}),
]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("", "abcd"),
        ("nonsense", "abcd"),
        ("-name", "dcba"),
        ("-failed", "dbca"),
        ("failed", "cbda"),
        ("-run", "dbca"),
        ("run", "cbda"),
        ("-ended", "bcda"),
    ],
)
def test_actors_without_a_figure_come_last(sort, names):
    assert "".join(facts.name for facts, _ in in_order(ROWS, sort)) == names
