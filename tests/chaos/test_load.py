"""Producers keep their pace, and the rate is that of the time in which the server took jobs."""

from __future__ import annotations

import time
from typing import Any

from tests.chaos.ledger import Entry, Ledger
from tests.chaos.load import load, offered_per_s
from tests.waiting import wait_for

SLOW_S = 0.2


class SlowOnce:
    """A broker whose third enqueue takes its time."""

    def __init__(self) -> None:
        self.count = 0

    def enqueue(self, message: Any, *, delay: int | None = None) -> None:
        self.count += 1
        if self.count == 3:
            wait_until_s = time.monotonic() + SLOW_S
            wait_for(lambda: time.monotonic() >= wait_until_s)


def test_the_time_without_a_server_and_what_was_tried_in_it_do_not_count() -> None:
    tried = [Entry("attempted", f"job-{number}", 1, at_s) for number, at_s in enumerate((0.0, 0.5, 1.0, 3.0, 4.5, 9.0))]
    others = [Entry("accepted", "job-0", 1, 0.1)]

    assert offered_per_s([*tried, *others], 0.0, 5.0) == 1.0
    assert offered_per_s([*tried, *others], 0.0, 5.0, [(1.0, 4.0)]) == 1.5
    assert offered_per_s([*tried, *others], 0.0, 5.0, [(4.0, 7.0)]) == 1.0


def test_a_slow_send_is_caught_up_where_that_is_asked_for(ledger: Ledger) -> None:
    broker: Any = SlowOnce()

    with load(broker, ledger, per_s=100, threads=1, caught_up_s=1.0) as producers:
        began_s = time.monotonic()
        producers.wait_for_accepted(40)
        took_s = time.monotonic() - began_s

    assert took_s < 0.4 + SLOW_S - 0.05
