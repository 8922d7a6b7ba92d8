"""``bin/bench plateau`` on real pools."""

from __future__ import annotations

from tests.integration.workers.conftest import Bench
from tests.unit.documentation.pages import code_blocks, read

PAGE = "docs/how-to/choose-a-pool.md"


def test_an_actor_of_the_reader_is_measured_as_the_page_says(bench: Bench) -> None:
    [shown] = code_blocks(read(PAGE), "sh")
    assert shown.split()[:2] == ["bin/bench", "plateau"]

    command = bench.start_module(
        "benchmarks", "plateau", "urgent_job", '["measured", 20]', "--tasks", "10", "--most", "2"
    )

    assert command.wait(120) == 0, bench.log()
    rows = [line.split() for line in bench.log().splitlines() if " tasks/s " in line]
    assert [(row[0], row[-1]) for row in rows] == [("1", "0"), ("2", "0")]
    assert "plateau: urgent_job gains up to " in bench.log()
