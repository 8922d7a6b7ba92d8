"""The memory of all containers is summed up, and a container that is too small is reported with figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from switchyard.broker.topology import Yard
from switchyard.deployment import rendered_files
from switchyard.deployment.rendered_files import COMPOSE_FILE, render, too_small
from tests.unit.deployment.yards import SPARE, YARD

LIMITED = Yard(YARD.queues, (replace(YARD.pools[0], memory_limit_bytes=200_000_000, isolated=1), SPARE))


def test_sum_is_that_of_the_containers_and_is_compared_with_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered_files, "memory_here_mib", lambda: 5_000)
    pools = sum(rendered_files.memory_mib(pool) for pool in LIMITED.pools)

    line = rendered_files.summary(LIMITED)

    assert f"{pools:,} MiB in the pools' containers, 4,608 MiB in the others, {pools + 4_608:,} MiB in all" in line
    assert line.endswith(
        "which is less: choose a larger one, or lower memory_limit_bytes, isolated or processes of pools"
    )


def test_rendered_file_gives_every_pool_enough() -> None:
    given = rendered_files.given_mib(render("compose", LIMITED)[COMPOSE_FILE])

    assert {"pool-vans", "pool-spare"} < set(given) and "migrate" not in given
    assert too_small(LIMITED, given) == []


def test_container_that_is_too_small_is_named_with_figures_and_remedy() -> None:
    text = render("compose", LIMITED)[COMPOSE_FILE]
    less = text.replace(f"memory: {rendered_files.memory_mib(LIMITED.pools[0])}M", "memory: 0.5g")

    [found] = too_small(LIMITED, rendered_files.given_mib(less))

    assert (found.id, found.obj) == ("switchyard.W008", "pool vans")
    assert found.msg == (
        "gets 512M in ops/compose.yaml; 3 children, a successor and 1 for isolated messages of up to 200 MB, "
        "beside their supervisor and 256M for /tmp, need 1,370M"
    )
    assert "topology render compose" in (found.hint or "")
