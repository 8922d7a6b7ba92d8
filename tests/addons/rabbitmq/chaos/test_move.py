"""docs/how-to/move-between-brokers.md, followed under load: nothing is lost and nothing runs twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.wiring import build_yard
from tests.addons.rabbitmq.yards import build_rabbit_yard
from tests.chaos.followed_pages import FollowedPage, followed
from tests.chaos.ledger import Ledger
from tests.chaos.load import YARD, declare_job, load
from tests.chaos.pools import RunningPool
from tests.waiting import wait_for

# A login that times out leaves pika's socket to the garbage collection.
SOCKET_LEFT = "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.filterwarnings(SOCKET_LEFT), pytest.mark.timeout(600)]

PAGE = "docs/how-to/move-between-brokers.md"
ON_REDIS, ON_RABBITMQ = ("redis://old.example.com:6379/0", "amqps://yard:PASSWORD@rabbit.example.com:5671/yard")


@pytest.fixture
def senders(valkey_url: str, rabbitmq_server: Any, ledger: Ledger) -> Iterator[tuple[Any, Any]]:
    """Brokers of this process that send, as the web does: to Redis, and to RabbitMQ with the same Redis beside it."""
    on_redis = build_yard(YARD, connect(valkey_url), Keys())
    on_rabbitmq = build_rabbit_yard(YARD, connect(valkey_url), Keys(), url=rabbitmq_server.url)
    for broker in (on_redis, on_rabbitmq):
        declare_job(broker, ledger)
    yield on_redis, on_rabbitmq
    for broker in (on_redis, on_rabbitmq):
        broker.close()
        broker.client.close()


@pytest.mark.long
@pytest.mark.parametrize(("per_s", "jobs"), [(30, 60), (100, 300)])
def test_a_yard_moves_from_redis_to_rabbitmq_and_back(
    senders: tuple[Any, Any],
    valkey_url: str,
    rabbitmq_server: Any,
    ledger: Ledger,
    tmp_path: Path,
    per_s: int,
    jobs: int,
) -> None:
    servers = {ON_REDIS: valkey_url, ON_RABBITMQ: rabbitmq_server.url}
    environment = {"DJANGO_SETTINGS_MODULE": "tests.chaos.yard.settings", "CHAOS_LEDGER": str(ledger.path)}
    with followed(PAGE, servers, tmp_path, environment) as page:
        to_redis, to_rabbitmq = senders
        old = ready(page, page.start("manage.py switchyard runpools", SWITCHYARD_BROKER_URL=valkey_url))
        with load(to_redis, ledger, per_s=per_s) as before:
            before.wait_for_accepted(jobs)

            new = ready(page, page.start(page.block()))
            with load(to_rabbitmq, ledger, per_s=per_s, first=100_000) as meanwhile:
                meanwhile.wait_for_accepted(jobs)
                before.stop()
                wait_until_empty(page, page.block())
                drain(page, old)
                meanwhile.wait_for_accepted(jobs)

                last = ready(page, page.start(page.block()))
                with load(to_redis, ledger, per_s=per_s, first=200_000) as after:
                    after.wait_for_accepted(jobs)
                    meanwhile.stop()
                    count = page.block()
                    wait_until_empty(page, count)
                    drain(page, new)
                    assert left(page, count) == 0, "the page has the reader start the old pools again"
                    after.stop()
        wait_for(lambda: not ledger.account().lost, what="every job has completed")
        drain(page, last)

    found = ledger.each_once()
    assert len(found.completed) == len(found.accepted) >= 4 * jobs


def ready(page: FollowedPage, pools: RunningPool) -> RunningPool:
    """Wait until pools print the line of the page."""
    [line] = re.findall(r"Wait until it says `(.+?)`", page.text)
    pools.wait_for_log(re.escape(line))
    return pools


def wait_until_empty(page: FollowedPage, count: str) -> None:
    """Repeat the page's count of the old queues until nothing is left in them."""
    wait_for(lambda: left(page, count) == 0, what="the old queues are empty")


def left(page: FollowedPage, count: str) -> int:
    """Return the sum of the figures of every queue that the page names."""
    [named] = re.findall(r"under the old address: (.+) are 0", page.text)
    figures = re.findall(r"`(\w+)`", named)
    assert len(figures) == 4
    return sum(queue[figure] or 0 for queue in json.loads(page.run(count)) for figure in figures)


def drain(page: FollowedPage, pools: RunningPool) -> None:
    """Stop pools as the page says."""
    assert "`SIGTERM` to each `runpools`: they drain and exit with 0" in page.text
    pools.process.terminate()
    assert pools.process.wait(60) == 0, pools.log()
