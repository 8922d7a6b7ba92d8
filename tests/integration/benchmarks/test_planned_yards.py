"""A plan against a real yard of some seconds; the whole comparison is ``python -m benchmarks.planned_yards``."""

from __future__ import annotations

from pathlib import Path

from benchmarks import planned_yards
from benchmarks.bench import Bench
from benchmarks.environments import Environments
from benchmarks.planned_yards import DrawnYard, draw, planned, really


def test_named_slots_keep_a_promise_that_too_few_do_not(tmp_path: Path) -> None:
    # A second of promise is many times what a busy machine adds to a start.
    yard = DrawnYard(0, rate=30.0, short_s=0.1, long_s=0.2, mixed=False, promise_s=1.0)
    bench, named = Bench(Environments(tmp_path)), planned(yard, 1).slots

    enough = really(bench, yard, named, 1, warm_s=0.0, counted_s=5.0)
    too_few = really(bench, yard, named - 2, 1, warm_s=0.0, counted_s=5.0)

    assert named == 4
    assert enough["late"] <= 0.01 < too_few["late"]
    assert enough["p95_s"] < 1.0 < too_few["p95_s"]


def test_a_yard_is_drawn_the_same_each_time_and_a_log_is_read_by_seed(tmp_path: Path) -> None:
    assert draw(1, 3) == draw(1, 3) != draw(2, 3)
    log = tmp_path / "log"
    assert list(planned_yards.known(log, 1)) == []
    log.write_text('{"seed": 1, "yard": {"number": 0}}\n{"seed": 2, "yard": {"number": 0}}\n')
    assert len(list(planned_yards.known(log, 1))) == 1
