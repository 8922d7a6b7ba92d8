"""``manage.py measure_pools`` on real pools."""

from __future__ import annotations

import json

import pytest

from tests.integration.workers.conftest import Bench
from tests.unit.documentation.pages import code_blocks, read

PAGE = "docs/how-to/choose-a-pool.md"


@pytest.mark.long
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


def test_an_actor_of_the_reader_is_measured_as_the_page_says(bench: Bench) -> None:
    shown = next(code for code in code_blocks(read(PAGE), "sh") if "'[" in code)
    words = shown.split()
    assert words[:2] == ["manage.py", "measure_pools"]

    command = bench.start(
        "measure_pools", "urgent_job", '["measured", 10]', "--tasks", "10", "--pools", "threads:1x4", "threads:1x1"
    )

    assert command.wait(90) == 0, bench.log()
    assert "urgent_job, 10 tasks" in bench.log()
    assert "picked: threads:1x" in bench.log()  # four slots are seldom slower for ten tasks, on a busy machine
