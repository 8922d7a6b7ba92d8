"""``manage.py measure_pools`` on real pools."""

from __future__ import annotations

import json

import pytest

from tests.chaos.postgres import PostgresUnderTest
from tests.integration.workers.conftest import Bench
from tests.unit.documentation.pages import code_blocks, read

PAGE = "docs/how-to/choose-a-pool.md"


def test_samples_are_measured_in_every_kind_of_pool_and_the_widest_waits_best(bench: Bench) -> None:
    pools = ["threads:1x2", "processes:1x1", "gevent:1x16"]
    command = bench.start("measure_pools", "http", "--tasks", "32", "--json", "--pools", *pools)

    assert command.wait(90) == 0, bench.log()
    told = json.loads(bench.log()[bench.log().index("{\n") :])["http"]
    assert [one["pool"] for one in told["pools"]] == pools
    assert told["picked"] == "gevent:1x16"
    by_pool = {one["pool"]: one for one in told["pools"]}
    assert all(one["failed"] == 0 and one["p50_ms"] >= 50 and one["memory_mb"] > 20 for one in told["pools"])
    assert by_pool["threads:1x2"]["tasks_per_s"] <= 2 / 0.05
    assert by_pool["processes:1x1"]["tasks_per_s"] <= 1 / 0.05


@pytest.mark.long
def test_each_sample_is_measured_and_computing_takes_its_time(bench: Bench) -> None:
    command = bench.start("measure_pools", "--tasks", "4", "--json", "--pools", "threads:1x1")

    assert command.wait(90) == 0, bench.log()
    told = json.loads(bench.log()[bench.log().index("{\n") :])
    assert set(told) == {"cpu", "http", "database"}
    for sample in told.values():
        [one] = sample["pools"]
        assert (one["pool"], one["failed"], sample["picked"]) == ("threads:1x1", 0, "threads:1x1")
    assert told["cpu"]["pools"][0]["p50_ms"] > 1
    assert told["cpu"]["pools"][0]["cpu_percent"] > told["http"]["pools"][0]["cpu_percent"]


@pytest.mark.long
def test_the_database_sample_waits_for_postgres_in_threads_and_in_greenlets(bench: Bench) -> None:
    with PostgresUnderTest() as postgres:
        bench.environment["DATABASE_URL"] = postgres.url
        pools = ["threads:1x2", "gevent:1x2"]
        command = bench.start("measure_pools", "database", "--tasks", "8", "--json", "--pools", *pools)

        assert command.wait(90) == 0, bench.log()

    told = json.loads(bench.log()[bench.log().index("{\n") :])["database"]
    assert [(one["pool"], one["failed"]) for one in told["pools"]] == [(pool, 0) for pool in pools]
    assert all(one["p50_ms"] >= 10 for one in told["pools"])
    assert told["picked"] in pools


def test_an_actor_of_the_reader_is_measured_as_the_page_says(bench: Bench) -> None:
    shown = next(code for code in code_blocks(read(PAGE), "sh") if "'[" in code)
    words = shown.split()
    assert words[:2] == ["manage.py", "measure_pools"]

    command = bench.start(
        "measure_pools", "urgent_job", '["measured", 10]', "--tasks", "10", "--pools", "threads:1x4", "threads:1x1"
    )

    assert command.wait(90) == 0, bench.log()
    assert "urgent_job, 10 tasks" in bench.log()
    assert "picked: threads:1x4" in bench.log()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_actor"], "no actor 'no_such_actor'; the project has "),
        (["cpu", "--pools", "threads"], "'threads' is no pool; write kind:PROCESSESxSLOTS"),
        (["cpu", "--tasks", "0"], "--tasks is 0; measure at least one"),
    ],
)
def test_what_cannot_be_measured_is_refused(bench: Bench, arguments: list[str], said: str) -> None:
    command = bench.start("measure_pools", *arguments)

    assert command.wait(60) == 2
    assert said in bench.log()


@pytest.mark.long
def test_tasks_that_always_fail_suit_no_pool(bench: Bench) -> None:
    command = bench.start(
        "measure_pools", "urgent_job", '["measured", 1, "no such way"]', "--tasks=4", "--pools", "threads:1x4"
    )

    assert command.wait(90) == 1, bench.log()
    assert "urgent_job: tasks failed in every pool, so no pool is picked" in bench.log()
    assert "picked:" not in bench.log()
