"""Events of jobs for the watchers of one process."""

from __future__ import annotations

import asyncio

import pytest
import redis

from switchyard.jobs import live
from switchyard.jobs.services import submit
from tests.integration.jobs import probe_actors
from tests.waiting import wait_for

ROUNDS = 300


def readers_at(valkey: redis.Redis) -> list[int]:
    """Return the ids of the broker's connections that follow a stream."""
    return [int(client["id"]) for client in valkey.client_list() if client["cmd"] == "xread"]


@pytest.mark.django_db(transaction=True)
def test_the_reader_ends_when_the_last_watcher_leaves_as_an_answer_arrives(valkey: redis.Redis) -> None:
    job_id = submit(probe_actors.add, owner="", kwargs={"a": 1, "b": 2})

    async def come_and_go() -> None:
        for _ in range(ROUNDS):
            async with live.watch(job_id, "default", after="0-0"):
                for connection in await asyncio.to_thread(wait_for, lambda: readers_at(valkey)):
                    await asyncio.to_thread(valkey.client_unblock, connection)
        await asyncio.to_thread(wait_for, lambda: not readers_at(valkey), 15, what="the reader to end")

    asyncio.run(come_and_go())
