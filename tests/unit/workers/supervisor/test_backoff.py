"""When a dead process is started again."""

from __future__ import annotations

from apps.platform.workers.supervisor.backoff import RestartDelay


def test_a_process_that_worked_is_started_again_at_once() -> None:
    assert RestartDelay().after(worked=True) == 0.0


def test_a_process_that_dies_before_it_worked_waits_longer_each_time_up_to_30_s() -> None:
    delay = RestartDelay()

    waits = [delay.after(worked=False) for _ in range(12)]

    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 30.0
    assert waits == sorted(waits)


def test_work_forgives_idle_deaths() -> None:
    delay = RestartDelay()
    for _ in range(5):
        delay.after(worked=False)

    delay.after(worked=True)

    assert delay.after(worked=False) == 0.1
