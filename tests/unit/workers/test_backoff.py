"""When a dead process is started again."""

from __future__ import annotations

from apps.platform.workers.backoff import RestartDelay


def test_a_process_that_lived_is_started_again_at_once() -> None:
    assert RestartDelay().after(60.0) == 0.0


def test_a_process_that_dies_right_away_waits_longer_each_time_up_to_30_s() -> None:
    delay = RestartDelay()

    waits = [delay.after(0.01) for _ in range(12)]

    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 30.0
    assert waits == sorted(waits)


def test_a_long_life_forgives_early_deaths() -> None:
    delay = RestartDelay()
    for _ in range(5):
        delay.after(0.01)

    delay.after(60.0)

    assert delay.after(0.01) == 0.1
