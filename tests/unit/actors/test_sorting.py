"""Orders of the list of actors."""

from __future__ import annotations

import pytest

from switchyard.actors.figures import DAY_MS, AttemptFigures
from switchyard.actors.queries import ActorFacts
from switchyard.actors.views import Row, in_order
from switchyard.broker.stores.yard_facts import CANCELLED, DEAD, RETRIED, RUNS, SUCCEEDED

SLOW, QUICK, BEYOND = {RUNS + 7: 5}, {RUNS + 2: 5}, {RUNS + 18: 5}


def row(name: str, counts: dict[int, int] | None) -> Row:
    ran = None if counts is None else AttemptFigures("last day", DAY_MS, counts)
    return ActorFacts(name, "default", (), "m", "m.py:1", "", (), None), ran


ROWS = [
    row("c", {SUCCEEDED: 9, **QUICK}),
    row("a", None),
    row("d", {DEAD: 2, RETRIED: 3, CANCELLED: 4, **BEYOND}),
    row("b", {DEAD: 1, SUCCEEDED: 50, **SLOW}),
]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        *(("", "abcd"), ("nonsense", "abcd"), ("-name", "dcba"), ("-failed", "dbca"), ("failed", "cbda")),
        *(("-run", "dbca"), ("run", "cbda"), ("-ended", "bcda")),
    ],
)
def test_actors_without_a_figure_come_last(sort: str, names: str) -> None:
    assert "".join(facts.name for facts, _ in in_order(ROWS, sort)) == names
