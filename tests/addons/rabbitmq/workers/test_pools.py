"""Pools on RabbitMQ: they work, drain, and lose nothing when a child is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard.addons.rabbitmq.broker import RabbitBroker
from switchyard.addons.rabbitmq.unique_claims import RabbitKeys
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


@pytest.fixture
def bench(valkey, valkey_url, tmp_path, rabbitmq_server) -> Iterator[RabbitBench]:
    bench = RabbitBench(valkey_url, tmp_path, rabbitmq_server.url)
    yield bench
    bench.stop_all()


def test_what_a_killed_child_held_runs_again_and_nothing_that_it_had_finished(bench):
    bench.up("runpool", "urgent")
    short = [bench.send("urgent") for _ in range(50)]
    wait_for(lambda: all(bench.ended(token) for token in short))
    long = bench.send("urgent", ms=3_000)
    first = wait_for(lambda: bench.started(long))

    os.kill(first["pid"], signal.SIGKILL)

    ends = wait_for(lambda: bench.ended(long))
    assert ends["pid"] != first["pid"]
    starts = [note["token"] for note in bench.notes("bench:started")]
    assert [starts.count(token) for token in short] == [1] * 50
    assert starts.count(long) == 2
    notes = RabbitKeys(bench.broker.keys.prefix).redelivered(bench.ids[long])
    assert bench.client.hget(notes, "crashes") == b"1"
    wait_for(lambda: bench.waiting("urgent") == 0)


@pytest.mark.long
def test_the_stock_of_a_killed_child_is_not_suspected_and_what_ran_is(bench):
    bench.up("runpool", "webhook")
    ran = [bench.send("webhook", ms=2_000) for _ in range(8)]
    first = wait_for(lambda: all(bench.started(token) for token in ran) and bench.started(ran[0]))
    stock = [bench.send("webhook") for _ in range(8)]
    wait_for(lambda: bench.waiting("webhook") == 0, what="all is in the child")

    os.kill(first["pid"], signal.SIGKILL)

    wait_for(lambda: all(bench.ended(token) for token in (*ran, *stock)))
    alone = [line for line in bench.log().splitlines() if "runs alone" in line]
    assert len(alone) >= 8
    assert all("crashes=1" in line for line in alone)  # what ran crashed its child; nothing is suspected of more
    assert bench.broker.redeliveries.suspects("webhook") == {}


@pytest.mark.long
def test_what_a_drained_pool_gives_back_is_not_suspected(bench):
    pool = bench.up("runpool", "webhook")
    ran = [bench.send("webhook", ms=1_000) for _ in range(8)]
    wait_for(lambda: all(bench.started(token) for token in ran))
    stock = [bench.send("webhook") for _ in range(8)]
    wait_for(lambda: bench.waiting("webhook") == 0, what="all is in the child")

    pool.terminate()
    assert pool.wait(60) == 0
    bench.start("runpool", "webhook", log="second")

    wait_for(lambda: all(bench.ended(token) for token in (*ran, *stock)))
    assert "runs alone" not in bench.log() + bench.log("second")
    assert bench.broker.redeliveries.suspects("webhook") == {}


@pytest.mark.parametrize("queue", ["webhook", pytest.param("urgent", marks=pytest.mark.long)])
def test_a_drain_under_a_backlog_makes_nothing_a_suspect(bench, queue):
    pool = bench.up("runpool", queue)
    sent = [bench.send(queue, ms=5) for _ in range(600)]
    wait_for(lambda: len(bench.notes("bench:started")) > 50)

    pool.terminate()
    assert pool.wait(60) == 0
    bench.start("runpool", queue, log="second")

    wait_for(lambda: len({note["token"] for note in bench.notes("bench:ended")}) == len(sent))
    assert "runs alone" not in bench.log("second")
    assert bench.broker.redeliveries.suspects(queue) == {}


class RabbitBench(Bench):
    """A bench whose messages are on RabbitMQ, and whose records are on Valkey.

    Args:
        url: Of Valkey.
    """

    settings = "tests.addons.rabbitmq.workers"

    def __init__(self, url: str, folder: Path, rabbitmq_url: str) -> None:
        super().__init__(url, folder)
        self.environment |= {"SWITCHYARD_BROKER_URL": rabbitmq_url, "SWITCHYARD_REDIS_URL": url}
        self.broker: Any = RabbitBroker(rabbitmq_url, RedisCalls(self.client), Keys())
        for lane in [*YARD.lanes, *(queue.alone_lane for queue in YARD.queues)]:
            self.broker.declare_queue(lane)
            self.broker.flush(lane)

    def waiting(self, queue: str) -> int:
        return self.broker.lane_stats(queue).waiting
