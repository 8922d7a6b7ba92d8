"""django-dramatiq's own command works on the yard's queues and cannot touch a dead list."""

from __future__ import annotations

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.dead_lists import DeadLists
from switchyard.wiring import build_yard
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import ROOT, Bench
from tests.waiting import wait_for

LETTER = DeadLetter(
    id="0a52e5b6-2e5c-4b1e-9b39-2d0f6a1f3c11",
    queue="webhook",
    actor="webhook_job",
    message={
        "queue_name": "webhook", "actor_name": "webhook_job", "args": ["given up", 0], "kwargs": {}, "options": {},
        "message_id": "0a52e5b6-2e5c-4b1e-9b39-2d0f6a1f3c11", "message_timestamp": 1_795_000_000_000,
    },
    reason="exhausted",
    exception="Unreachable",
    error="no answer",
    traceback="",
    attempts=6,
    enqueued_at=1_795_000_000_000,
    died_at=1_795_000_060_000,
    duration_ms=12,
    fingerprint="f" * 16,
)  # fmt: skip


def test_rundramatiq_serves_the_live_queues_and_leaves_webhook_dead_untouched(bench: Bench) -> None:
    dead = DeadLists(RedisCalls(bench.client), Keys())
    dead.add(LETTER)

    bench.start("rundramatiq", "--processes", "1", "--threads", "2", "--path", str(ROOT))
    tokens = [bench.send(queue) for queue in ("webhook", "urgent", "slow")]

    for token in tokens:
        wait_for(lambda token=token: bench.ended(token))
    assert dead.get("webhook", LETTER.id) == LETTER
    assert dead.count("webhook") == 1
    assert not [note for note in bench.notes("bench:started") if note["token"] == "given up"]


def test_a_task_that_asks_ends_at_once_and_waits_for_another_worker(bench: Bench) -> None:
    queues = ("urgent", "webhook", "slow")
    pools = bench.up("runpools", *queues, "--no-history", "--grace", "20")
    told = {queue: bench.send(queue, ms=60_000, notify_shutdown=True, max_retries=0) for queue in queues}
    neighbours = [bench.send(queue, ms=1_500) for queue in queues]
    wait_for(lambda: all(bench.started(token) for token in (*told.values(), *neighbours)))

    pools.terminate()

    assert pools.wait(30) == 0
    records = facilities(build_yard(YARD, bench.client, Keys())).records
    for queue, token in told.items():
        record = records.read(bench.ids[token])
        assert record is not None
        found = (record.state, record.attempts, record.error and record.error["type"])
        assert found == ("retrying", 1, "Shutdown"), queue
        assert not bench.ended(token)
    assert all(bench.ended(token) for token in neighbours), "only a task that asks is interrupted"
