"""Producers keep their pace, and the rate is that of the time in which the server took jobs."""

from __future__ import annotations

from tests.chaos.ledger import Entry
from tests.chaos.load import offered_per_s


def test_the_time_without_a_server_and_what_was_tried_in_it_do_not_count() -> None:
    tried = [Entry("attempted", f"job-{number}", 1, at_s) for number, at_s in enumerate((0.0, 0.5, 1.0, 3.0, 4.5, 9.0))]
    others = [Entry("accepted", "job-0", 1, 0.1)]

    assert offered_per_s([*tried, *others], 0.0, 5.0) == 1.0
    assert offered_per_s([*tried, *others], 0.0, 5.0, [(1.0, 4.0)]) == 1.5
    assert offered_per_s([*tried, *others], 0.0, 5.0, [(4.0, 7.0)]) == 1.0
