"""docs/how-to/move-between-brokers.md, under load: nothing is lost and nothing runs twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.load import load
from tests.chaos.pools import ROOT, Pools
from tests.unit.documentation.pages import read
from tests.waiting import wait_for

if TYPE_CHECKING:
    from tests.chaos.rabbit_pools import RabbitPools

# A login that times out leaves pika's socket to the garbage collection.
SOCKET_LEFT = "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
pytestmark = [
    pytest.mark.usefixtures("valkey"),
    pytest.mark.long,
    pytest.mark.filterwarnings(SOCKET_LEFT),
    pytest.mark.timeout(600),
]

YARD = "load"
PAGE = "docs/how-to/move-between-brokers.md"
COUNTED = ("depth", "scheduled", "running", "retrying")


@pytest.fixture
def sides(valkey_url: str, rabbitmq_server: Any, ledger: Ledger, tmp_path: Path) -> Iterator[tuple[Pools, RabbitPools]]:
    """Pools of one yard on Redis, and on RabbitMQ with the same Redis beside it."""
    from tests.chaos.rabbit_pools import RabbitPools

    sides = (
        Pools(tmp_path, ledger, valkey_url, YARD),
        RabbitPools(tmp_path, ledger, rabbitmq_server, YARD, beside=valkey_url),
    )
    yield sides
    for side in sides:
        side.stop_all()


def test_a_yard_moves_from_redis_to_rabbitmq_and_back(sides: tuple[Pools, RabbitPools], ledger: Ledger) -> None:
    on_redis, on_rabbitmq = sides
    on_redis.start("runpools")
    with load(on_redis.broker, ledger, per_s=100) as before:
        before.wait_for_accepted(300)

        on_rabbitmq.start("runpools")
        with load(on_rabbitmq.broker, ledger, per_s=100, first=100_000) as meanwhile:
            meanwhile.wait_for_accepted(200)
            before.stop()
            wait_for(lambda: counted(on_redis) == 0, 60, what="the old queues are empty")
            on_redis.drain_all()
            meanwhile.wait_for_accepted(200)

            on_redis.start("runpools")
            with load(on_redis.broker, ledger, per_s=100, first=200_000) as after:
                after.wait_for_accepted(200)
                meanwhile.stop()
                wait_for(lambda: counted(on_rabbitmq) == 0, 60, what="the old queues are empty")
                on_rabbitmq.drain_all()
                assert counted(on_rabbitmq) == on_rabbitmq.left() == 0
                after.stop()
    wait_for(lambda: counted(on_redis) == 0, 60)
    on_redis.drain_all()

    found = ledger.account()
    assert (found.lost, found.duplicated, found.unexpected) == ((), (), ())
    assert len(found.completed) == len(found.accepted) > 900


def counted(side: Pools) -> int:
    """Return how many messages a side has, by the how-to's command under the side's addresses."""
    [command] = {
        line.strip().partition(" ")[2] for line in read(PAGE).splitlines() if line.endswith("manage.py queues --json")
    }
    assert command == "manage.py queues --json"
    environment = {
        **os.environ,
        **side.addresses(""),
        "DJANGO_SETTINGS_MODULE": "tests.chaos.yard.settings",
        "CHAOS_YARD": YARD,
        "CHAOS_LEDGER": os.devnull,
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "queues", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return sum(queue[name] or 0 for queue in json.loads(done.stdout) for name in COUNTED)
