"""The benchmarks run, on our own broker and with tiny sizes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import supervised
from benchmarks.bench import Bench
from benchmarks.drain import drain
from benchmarks.environments import Environments
from benchmarks.peers import PEERS
from tests.waiting import wait_for


def test_a_drain_on_our_broker_gives_its_figures(tmp_path: Path) -> None:
    bench = Bench(Environments(tmp_path), size=0.01)

    figures = drain(bench, PEERS["switchyard"], workers=1)

    assert figures["drain_1x8_per_s"] > 100
    assert figures["drain_1x8_server_us_per_task"] > 0
    assert 0 < figures["drain_1x8_commands_per_task"] < 50


@pytest.mark.long
def test_a_pool_and_a_bare_worker_drain_by_turns(tmp_path: Path) -> None:
    figures = supervised.measure(Bench(Environments(tmp_path), size=0.01), PEERS["switchyard-pool"])

    assert figures["supervised_drain_per_s"] > 100
    assert figures["unsupervised_drain_per_s"] > 100


@pytest.mark.long
def test_a_history_is_written_while_a_backlog_is_drained(tmp_path: Path) -> None:
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
