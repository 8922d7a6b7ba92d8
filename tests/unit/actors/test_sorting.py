"""Orders of the list of actors."""

from __future__ import annotations

import pytest

from switchyard.actors.figures import ActorMetrics, Percentiles
from switchyard.actors.queries import ActorFacts
from switchyard.actors.views import Row, in_order

SLOW, QUICK, BEYOND = (Percentiles(5, 10.0, p95) for p95 in (640.0, 20.0, None))


def row(name: str, ran: ActorMetrics | None) -> Row:
    return ActorFacts(name, "default", (), "m", "m.py:1", "", (), None), ran


ROWS = [
    row("c", ActorMetrics((("succeeded", 9),), QUICK, None)),
    row("a", None),
    row("d", ActorMetrics((("dead", 2), ("retried", 3), ("cancelled", 4)), BEYOND, None)),
    row("b", ActorMetrics((("dead", 1), ("succeeded", 50)), SLOW, None)),
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
def test_actors_without_a_figure_come_last(sort: str, names: str) -> None:
    assert "".join(facts.name for facts, _ in in_order(ROWS, sort)) == names
