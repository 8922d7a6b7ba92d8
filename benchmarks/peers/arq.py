"""arq, with JSON; it polls every 0.5 s by default."""

import json
import os
from typing import Any

from arq import ArqRedis, create_pool
from arq.connections import RedisSettings

from benchmarks.records import run_async

SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_URL"])


def _dumps(job: dict[str, Any]) -> bytes:
    return json.dumps(job, default=str).encode()


async def work(context: dict[str, Any], task: dict[str, float]) -> None:
    """The task."""
    await run_async(task)


class WorkerSettings:
    """Settings that arq reads."""

    functions = [work]
    redis_settings = SETTINGS
    max_jobs = int(os.environ.get("BENCH_SLOTS", "8"))
    poll_delay = float(os.environ.get("BENCH_POLL_DELAY_S", "0.5"))
    job_serializer = staticmethod(_dumps)
    job_deserializer = staticmethod(json.loads)


async def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    await (await _client()).enqueue_job("work", task)


def worker_command(slots: int) -> list[str]:
    """Start a worker of ``slots`` coroutines, its logging left alone."""
    return ["-c", "from arq import run_worker; from benchmarks.peers.arq import WorkerSettings as S; run_worker(S)"]


_pool: list[ArqRedis] = []


async def _client() -> ArqRedis:
    if not _pool:
        _pool.append(await create_pool(SETTINGS, job_serializer=_dumps, job_deserializer=json.loads))
    return _pool[0]
