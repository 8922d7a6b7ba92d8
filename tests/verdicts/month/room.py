"""Memory that the facts of a large yard take in the broker, and room in the database."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from switchyard.broker.keys import Keys
from switchyard.broker.stores.yard_facts import (
    AGE_MS,
    BUCKET_MS,
    BUCKET_TTL_MS,
    DEPTH,
    KEPT_MS,
    LATER,
    LOG_BYTES,
    PROCESSOR_MS,
    RETRIED,
    RUN_MS,
    RUNS,
    SENT,
    SPAN_MS,
    SQL_MS,
    SUCCEEDED,
    WAIT_MS,
    WAITS,
    actor_subject,
    dependency_subject,
    field,
    queue_subject,
)
from tests.chaos.server import ServerUnderTest

QUEUES, RETRY_LANES, ACTORS, POOLS, DEPENDENCIES = 30, 10, 60, 8, 10
# Attempts a minute of each subject, at most.
MOST: int = 300


def taken_mb(folder: Path) -> tuple[float, float]:
    """Fill a server with the facts of a yard whose queues and actors are all active all the time; return MB."""
    draw = random.Random(1)
    queues = [queue_subject(f"queue-number-{n}") for n in range(QUEUES + RETRY_LANES)]
    actors = [actor_subject(f"actor_of_some_name_{n}") for n in range(ACTORS)]
    others = [*(f"p:pool-{n}" for n in range(POOLS)), "r:2026.11", "y:"]
    dependencies = [dependency_subject(f"dependency-{n}") for n in range(DEPENDENCIES)]
    subjects = [*queues, *actors, *others, *dependencies]
    with ServerUnderTest(folder) as server:
        used = [_used(server)]
        for span in range(0, KEPT_MS, SPAN_MS):
            packed = {
                each: msgspec.msgpack.encode({n: _counts(draw, each, MOST) for n in range(10)}) for each in subjects
            }
            server.admin.hset(Keys().facts_span(span), mapping=packed)  # type: ignore[arg-type]
        used.append(_used(server))
        for bucket in range(0, BUCKET_TTL_MS, BUCKET_MS):
            counts = {field(each, code): n for each in subjects for code, n in _counts(draw, each, MOST // 6).items()}
            server.admin.hset(Keys().facts_bucket(bucket), mapping=counts)  # type: ignore[arg-type]
        used.append(_used(server))
    return (used[1] - used[0]) / 1e6, (used[2] - used[1]) / 1e6


def _used(server: ServerUnderTest) -> int:
    return int(server.admin.info("memory")["used_memory"])  # type: ignore[index]


def _counts(draw: random.Random, subject: str, most: int) -> dict[int, int]:
    found = {SUCCEEDED: draw.randrange(most), RETRIED: draw.randrange(5)}
    if subject.startswith("d:"):
        return found
    found |= {WAIT_MS: draw.randrange(most * 1_000), RUN_MS: draw.randrange(most * 1_000)}
    for first, classes in ((WAITS, 5), (RUNS, 6)):
        least = draw.randrange(8)
        found |= {first + n: draw.randrange(1, most) for n in range(least, least + classes)}
    if subject.startswith("q:"):
        found |= {DEPTH: draw.randrange(1_000), AGE_MS: draw.randrange(60_000)}
    if subject.startswith("a:"):
        found |= {SENT: draw.randrange(most), LATER + 3: draw.randrange(1, 9), PROCESSOR_MS: draw.randrange(most * 100)}
        found |= {SQL_MS: draw.randrange(most * 100), LOG_BYTES: draw.randrange(most * 400)}
    return found
