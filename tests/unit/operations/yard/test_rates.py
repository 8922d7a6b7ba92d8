from __future__ import annotations

from switchyard.operations.queries import QueueSnapshot, between, note


def test_arrivals_are_what_is_there_more_and_what_ended() -> None:
    rates = between(QueueSnapshot(0, issued=100, there=50, leased=8), QueueSnapshot(10, issued=200, there=90, leased=8))

    assert (rates.arrivals, rates.starts, rates.ends, rates.seconds) == (14, 10, 10, 10)


def test_rates_need_a_second_and_forget_what_is_older_than_a_minute() -> None:
    assert note("unit", QueueSnapshot(0, 0, 0, 0)) is None
    assert note("unit", QueueSnapshot(0.5, 5, 0, 0)) is None
    first = note("unit", QueueSnapshot(10, 100, 0, 0))
    assert first is not None and first.seconds == 10
    second = note("unit", QueueSnapshot(65, 650, 0, 0))
    assert second is not None and second.seconds == 55


def test_a_server_that_was_emptied_starts_anew() -> None:
    note("emptied", QueueSnapshot(0, 1_000, 0, 0))
    assert note("emptied", QueueSnapshot(10, 5, 0, 0)) is None
