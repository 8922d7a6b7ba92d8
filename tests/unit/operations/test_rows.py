from __future__ import annotations

from dataclasses import replace

import pytest

from switchyard.broker.health.servers import AwayPart
from switchyard.operations.findings import pools
from switchyard.operations.queries import YardState
from switchyard.operations.rows import AWAY, PROMISE_X, Row, draw, yard_rows
from switchyard.operations.supervisors import ServerState
from tests.unit.operations.yards import YARD, down, facts, lane, pool, state


def row(name: str, now: YardState | None) -> Row:
    return next(row for row in yard_rows(YARD, now) if row.name == name)


def test_rows_are_queues_their_own_retry_lanes_and_the_shared_pool_in_order() -> None:
    names = [(row.name, row.kind) for row in yard_rows(YARD, state())]

    assert names == [("mail", "queue"), ("hooks", "queue"), ("hooks-retry", "lane"), ("retries", "pool")]
    assert names == [(row.name, row.kind) for row in yard_rows(YARD, None)]


@pytest.mark.parametrize(
    ("now", "word", "level", "signal"),
    [
        (state(), "Quiet", "calm", "open"),
        (state(lane("mail", 3, age_ms=900)), "On time", "ok", "open"),
        (state(lane("mail", 3, age_ms=3_000)), "Late", "warn", "open"),
        (state(lane("mail", 3, age_ms=41_000)), "Late", "bad", "open"),
        (state(lane("mail", 3, age_ms=41_000), paused=True), "Paused", "warn", "paused"),
        (state(lane("mail", 3, age_ms=41_000), down("mail")), "No pool", "bad", "cross"),
        (state(lane("mail", scheduled=3), down("mail")), "No pool", "bad", "cross"),
        (state(None, down("mail")), "No pool", "warn", "cross"),
        (state(lane("mail", 3), down("mail", "starting")), "No pool", "warn", "cross"),
        (state(lane("mail", 3, age_ms=41_000), pool("mail", quieted=1)), "Quieted", "bad", "paused"),
        (state(None, pool("mail", quieted=1)), "Quieted", "warn", "paused"),
        (state(lane("mail", 3, age_ms=9), pool("mail", supervisors=2, quieted=1)), "On time", "ok", "open"),
        (None, "Unknown", "calm", "unknown"),
    ],
)
def test_state_words(now: YardState | None, word: str, level: str, signal: str) -> None:
    found = row("mail", now)

    assert (found.state.word, found.state.level, found.signal) == (word, level, signal)


def test_shared_pool_sums_the_lanes_it_works() -> None:
    found = row("retries", state(retry=lane("mail-retry", 2, scheduled=5, age_ms=70)))

    assert (found.waiting, found.held, found.oldest_age_ms, found.state.word) == (2, 5, 70, "Flowing")
    assert row("mail", state(retry=lane("mail-retry", 2, scheduled=5))).retrying == 7


def test_dead_letters_stand_at_the_row_whose_lane_ends_there() -> None:
    assert row("mail", state(dead=3)).dead == 3
    assert (row("hooks", state()).dead, row("hooks-retry", state()).dead) == (None, 0)
    assert not row("mail", state(dead=3)).folds


@pytest.mark.parametrize(("age_ms", "past"), [(1, False), (999, False), (1_500, True), (10_000_000, True)])
def test_train_crosses_the_promise_only_when_it_is_broken(age_ms: int, past: bool) -> None:
    marks = draw(row("mail", state(lane("mail", 5, age_ms=age_ms)))).train

    assert marks
    assert any(kind == "past" for _, _, kind in marks) is past
    assert all((x < PROMISE_X) == (kind == "past") for x, _, kind in marks)
    assert min(x for x, _, _ in marks) >= 0


def test_a_queue_whose_node_is_away_is_told_apart_from_the_others() -> None:
    now = state()
    part = replace(now, queues=now.queues[1:], server=ServerState(away=AwayPart(("n:1",), ("mail",))))

    assert (row("mail", part).state, row("mail", part).waiting) == (AWAY, None)
    assert row("hooks", part).state.word == "Quiet"
    assert row("retries", part).waiting == 0


def test_pools_whose_reports_are_unknown_are_not_called_missing() -> None:
    unknown = replace(
        state(lane("mail", 3, age_ms=10), down("mail"), down("retries")), server=ServerState(pools_known=False)
    )

    found = row("mail", unknown)

    assert (found.state.word, found.signal, found.slots_known) == ("On time", "open", False)
    assert draw(found).slots == ()
    assert row("retries", unknown).state.word == "Quiet"
    assert not list(pools.look_at_absence(facts(unknown)))
    assert list(pools.look_at_absence(facts(replace(unknown, server=ServerState()))))
