"""Tests of the test: the machine finds every seeded defect, and a defect that no longer fits its script is an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.server import ServerUnderTest, server_binary
from tests.model.defects import DEFECTS, Defect
from tests.model.machine import run
from tests.model.scripts import Change, ChangeDoesNotApply, Scripts
from tests.model.steps import bench_on


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """One server for all: each example begins with an empty one."""
    with ServerUnderTest(tmp_path_factory.mktemp("defects"), server_binary("valkey-server")) as server:
        yield server


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(defect, id=defect.name, marks=[pytest.mark.long] if defect.rare or number % 6 else [])
        for number, defect in enumerate(DEFECTS)
    ],
)
def test_a_seeded_defect_is_found(valkey_server: ServerUnderTest, defect: Defect) -> None:
    bench = bench_on(valkey_server, Scripts(defect.changes), defect.family)

    with pytest.raises(AssertionError):
        run(bench, examples=1000)


def test_at_least_nine_defects_are_seeded() -> None:
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 9


@pytest.mark.parametrize("old", ["no such text", "redis.call"])
def test_a_change_that_does_not_apply_is_an_error(old: str) -> None:
    with pytest.raises(ChangeDoesNotApply):
        Scripts([Change("queue/dead_letter", old, "")])
