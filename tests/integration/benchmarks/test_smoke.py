"""The benchmarks run with tiny sizes, and a plan holds against a real yard of some seconds."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import planned_yards, supervised
from benchmarks.bench import Bench
from benchmarks.drain import drain
from benchmarks.environments import Environments
from benchmarks.peers import PEERS
from benchmarks.planned_yards import DrawnYard, draw, planned, really
from tests.waiting import wait_for


def test_a_drain_on_our_broker_gives_its_figures(tmp_path):
    bench = Bench(Environments(tmp_path), size=0.01)

    figures = drain(bench, PEERS["switchyard"], workers=1)

    assert figures["drain_1x8_per_s"] > 100
    assert figures["drain_1x8_server_us_per_task"] > 0
    assert 0 < figures["drain_1x8_commands_per_task"] < 50


@pytest.mark.long
def test_a_pool_and_a_bare_worker_drain_by_turns(tmp_path):
    figures = supervised.measure(Bench(Environments(tmp_path), size=0.01), PEERS["switchyard-pool"])

    assert figures["supervised_drain_per_s"] > 100
    assert figures["unsupervised_drain_per_s"] > 100


@pytest.mark.long
def test_a_history_is_written_while_a_backlog_is_drained(tmp_path):
    bench = Bench(Environments(tmp_path), size=0.01)

    with bench.stage(PEERS["switchyard-history"]) as stage:
        stage.start_workers(1, slots=8)
        stage.fill(200)
        stage.wait_for_records(200)
        database = stage.folder / "db.sqlite3"
        wait_for(lambda: rows(database, "switchyard_history_jobrow") >= 200)


def rows(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def test_named_slots_keep_a_promise_that_too_few_do_not(tmp_path):
    # A second of promise is many times what a busy machine adds to a start.
    yard = DrawnYard(0, rate=30.0, short_s=0.1, long_s=0.2, mixed=False, promise_s=1.0)
    bench, named = Bench(Environments(tmp_path)), planned(yard, 1).slots

    enough = really(bench, yard, named, 1, warm_s=0.0, counted_s=5.0)
    too_few = really(bench, yard, named - 2, 1, warm_s=0.0, counted_s=5.0)

    assert named == 4
    assert enough["late"] <= 0.01 < too_few["late"]
    assert enough["p95_s"] < 1.0 < too_few["p95_s"]


def test_a_yard_is_drawn_the_same_each_time_and_a_log_is_read_by_seed(tmp_path):
    assert draw(1, 3) == draw(1, 3) != draw(2, 3)
    log = tmp_path / "log"
    assert list(planned_yards.known(log, 1)) == []
    log.write_text('{"seed": 1, "yard": {"number": 0}}\n{"seed": 2, "yard": {"number": 0}}\n')
    assert len(list(planned_yards.known(log, 1))) == 1
