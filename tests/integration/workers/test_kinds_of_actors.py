"""Async actors, generic actors and callbacks in forked and threaded pools."""

from __future__ import annotations

import json
from typing import Any

from dramatiq import Message

from tests.integration.workers.conftest import BENCH, Bench
from tests.integration.workers.kinds import DONE
from tests.waiting import wait_for

POOLS = ("urgent", "slow", "retries")


def send(bench: Bench, queue: str, actor: str, *args: Any, **options: Any) -> str:
    """Enqueue a message, as a sender without the actors does."""
    message: Message[Any] = Message(queue, actor, args, {}, options)
    return bench.broker.enqueue(message).message_id


def done(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(note) for note in bench.client.lrange(DONE, 0, -1)]  # type: ignore[union-attr]


def test_each_kind_of_actor_runs_in_both_pools_its_callbacks_follow_and_a_coroutine_is_interrupted(
    bench: Bench,
) -> None:
    pools = bench.up("runpools", *POOLS, apps=f"{BENCH} tests.integration.workers.kinds")
    word = {"urgent": "Hi", "slow": "Good evening"}

    for queue in ("urgent", "slow"):
        generic = f"{queue.title()}Greeting"
        for name in ("Ann", ""):
            send(bench, queue, generic, name)
            send(bench, queue, f"{queue}_fetch", name)
    wait_for(lambda: len(done(bench)) == 12)

    notes = done(bench)
    for queue in ("urgent", "slow"):
        generic, fetch = f"{queue.title()}Greeting", f"{queue}_fetch"
        assert {"of": generic, "result": f"{word[queue]} Ann"} in notes
        assert {"of": generic, "error": "ValueError"} in notes
        assert {"of": fetch, "result": "Ann"} in notes
        assert {"of": fetch, "error": "ValueError"} in notes
        assert notes.count({"runs": fetch, "loop": True}) == 2

    send(bench, "urgent", "urgent_fetch", "limited", 60_000, time_limit=300)
    wait_for(lambda: {"interrupted": "limited"} in done(bench))
    send(bench, "slow", "slow_fetch", "stopped", 60_000, notify_shutdown=True)
    wait_for(lambda: done(bench).count({"runs": "slow_fetch", "loop": True}) == 3)
    pools.terminate()

    assert pools.wait(60) == 0
    assert {"interrupted": "stopped"} in done(bench)


def test_a_task_in_a_greenlet_runs_no_event_loop_that_others_would_be_inside_of(bench: Bench) -> None:
    bench.up("runpools", "webhook", "retries", "--no-history")
    loops = [bench.send("webhook", ms=1_500, how=how) for how in ("loop", "loop_elsewhere")]
    wait_for(lambda: all(map(bench.started, loops)))

    others = [bench.send("webhook") for _ in range(5)]

    wait_for(lambda: all(map(bench.ended, (*others, loops[1]))))
    assert "SynchronousOnlyOperation" not in bench.log()
    [dead] = [line for line in bench.log().splitlines() if "] dead " in line]
    assert f"job_id={bench.ids[loops[0]]}" in dead and "reason=permanent" in dead
    assert "threadpool.apply(asyncio.run" in bench.log()
