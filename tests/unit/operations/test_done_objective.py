"""The objective of a queue's end: judged by the oldest message that waits or is held, as that of its start."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from switchyard.broker.errors import InvalidDeclaration
from switchyard.operations.overview import Verdict, diagnose
from switchyard.operations.queries import YardState
from switchyard.operations.rows import Row, yard_rows
from tests.unit.operations import yards

MAIL, HOOKS = yards.YARD.queues
YARD = replace(yards.YARD, queues=(replace(MAIL, done_objective_ms=2_000), HOOKS))


pytestmark = pytest.mark.usefixtures("small_yard")


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
        *((held_for(None), "On time", "ok"), (held_for(1_900), "On time", "ok"), (held_for(4_200), "Late", "warn")),
        *((held_for(100, age_ms=900), "On time", "ok"), (held_for(20_000), "Late", "bad")),
        (held_for(20_000, paused=True), "Paused", "warn"),
    ],
)
def test_state_is_that_of_the_oldest_unfinished_message(now: YardState, word: str, level: str) -> None:
    assert (row(now).state.word, row(now).state.level) == (word, level)


def test_jobs_that_start_in_time_and_end_late_are_a_verdict_of_their_own() -> None:
    found = verdict(held_for(4_200))

    late = "mail ends its jobs late: the oldest is 2.1 × behind the promise to end, 4.2 s after it was ready"
    assert found.sentence == f"{late}; what waits now is in time."
    assert found.facts[0] == ("2.1 ×", "its promise to end, the furthest: mail, 4.2 s")
    assert row(held_for(4_200)).state.detail == "2.1 × its promise to end"


def test_jobs_that_start_late_are_told_by_their_start() -> None:
    found = verdict(held_for(9_000, age_ms=9_000))

    assert found.sentence.startswith("mail is 9.0 × behind its promise, because ")
    assert found.also == ()


def test_an_end_before_the_start_cannot_be_promised() -> None:
    with pytest.raises(InvalidDeclaration, match=r"done_objective_ms is 999; write milliseconds, 1000 or more"):
        replace(MAIL, done_objective_ms=999)
