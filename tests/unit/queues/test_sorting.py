"""Orders of the list of queues."""

from __future__ import annotations

import pytest

from switchyard.operations.rows import yard_rows
from switchyard.queues.views import QueueRow, in_order
from tests.unit.operations.yards import YARD, lane, state


def rows() -> list[QueueRow]:
    found = yard_rows(YARD, state(lane("mail", waiting=3, age_ms=500), dead=2))
    return [(row, None, 0, row.dead) for row in found if row.kind == "queue"]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("", ["mail", "hooks"]),
        ("-waiting", ["mail", "hooks"]),
        ("waiting", ["hooks", "mail"]),
        ("oldest", ["mail", "hooks"]),
        ("-dead", ["mail", "hooks"]),
        ("retrying", ["mail", "hooks"]),
        ("nonsense", ["mail", "hooks"]),
    ],
)
def test_queues_without_a_figure_come_last_and_equal_ones_as_in_the_topology(sort: str, names: list[str]) -> None:
    assert [row.name for row, *_ in in_order(rows(), sort)] == names
