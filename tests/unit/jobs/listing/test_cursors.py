"""Places in a list of jobs as text."""

from __future__ import annotations

import pytest

from switchyard.history.queries import Cursor
from switchyard.jobs.listing.pages import ListCursor


@pytest.mark.parametrize(
    "cursor",
    [
        ListCursor(),
        ListCursor(live=(5, "a~b.c-d"), ended=Cursor(7, 8)),
        ListCursor(live_over=True, ended=Cursor(7, 8)),
        ListCursor(ended_over=True, live=(0, "x")),
    ],
)
def test_a_place_is_the_same_after_a_round_trip_as_text(cursor: ListCursor) -> None:
    assert ListCursor.parse(str(cursor)) == cursor
