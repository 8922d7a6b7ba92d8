"""The five invariants hold whatever happens to a queue family, on a real Valkey and on a real Redis."""

from __future__ import annotations

import pytest

from tests.chaos.server import ServerUnderTest
from tests.model.machine import run
from tests.model.scripts import Scripts
from tests.model.steps import bench_on


def test_the_invariants_hold_and_every_state_is_visited(server: ServerUnderTest) -> None:
    bench = bench_on(server, Scripts())

    run(bench, examples=200)

    print(bench.coverage.table())
    bench.coverage.check()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_invariants_hold_in_a_thousand_examples(server: ServerUnderTest) -> None:
    bench = bench_on(server, Scripts())

    run(bench, examples=1000)

    print(bench.coverage.table())
    bench.coverage.check()
