"""F08 and F09: children that die at one moment of a message's way: nothing is lost at any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.load import enqueue, wait_until_drained
from tests.chaos.yard.moments import MOMENTS

pytestmark = pytest.mark.usefixtures("valkey")
JOBS = 60
MOST_HELD = 8  # by a child of four slots
EARLY = ("before the fetch", "after the fetch", "before it is handed out", "before the slot", "after the slot")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=pytest.mark.long)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_child_that_dies_at_a_moment_of_a_messages_way_loses_nothing(
    pools_on: PoolsOn,
    valkey_url: str,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    yard: str,
) -> None:
    monkeypatch.setenv("CHAOS_MOMENT", moment)
    monkeypatch.setenv("CHAOS_MOMENT_MARK", str(tmp_path / "died"))
    pools = pools_on(yard, valkey_url)
    for number in range(JOBS):
        enqueue(pools.broker, ledger, f"job-{number:02d}.", 5)

    pool = pools.start("runpool", "work", settings="tests.chaos.yard.dying_settings")
    wait_until_drained(pools.broker, 30)

    found = ledger.account()
    deaths = len(list(tmp_path.glob("died*")))
    print(f"{moment}: {deaths} deaths, {len(ledger.jobs('started')) - JOBS} started again")
    assert (found.lost, found.unexpected) == ((), ())
    assert deaths == 3
    # Two threads of one child may come to the moment together.
    assert 1 <= pool.log().count("killed by SIGKILL") <= deaths
    # What has ended is acknowledged in batches, after its record is written; until then it runs again with its child's
    # death. Before its end nothing can be twice.
    assert len(found.duplicated) <= (0 if moment in EARLY else deaths * MOST_HELD)
