"""States of a small yard."""

from collections.abc import Mapping
from typing import Any

from switchyard.broker.clock import now_ms
from switchyard.broker.shapes import LaneStats, QueueStats
from switchyard.broker.stores.job_record import Job
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.operations.findings.actors import AllFailing
from switchyard.operations.findings.facts import YardFacts
from switchyard.operations.queries import PoolState, YardState
from switchyard.operations.rows import yard_rows

YARD = Yard(
    queues=(
        Queue("mail", objective_ms=1_000, soft_limit_ms=10_000, hard_limit_ms=15_000),
        Queue("hooks", objective_ms=1_000, soft_limit_ms=10_000, hard_limit_ms=15_000),
    ),
    pools=(
        Pool("mail", "threads", ("mail",), processes=1, slots=4),
        Pool("hooks", "gevent", ("hooks",), processes=1, slots=64),
        Pool("hooks-retry", "gevent", ("hooks-retry",), processes=1, slots=32),
        Pool("retries", "threads", (), processes=1, slots=8, shared_retries=True),
    ),
)


def lane(name: str, waiting: int = 0, scheduled: int = 0, running: int = 0, age_ms: int | None = None) -> LaneStats:
    return LaneStats(name, waiting, scheduled, running, age_ms)


def pool(name: str, **changes: Any) -> PoolState:
    values = {"up": True, "ready": True, "state": "up", "busy": 0, "memory_bytes": 100_000_000, "beat_at": now_ms()}
    values["slots"] = YARD.pool(name).total_slots
    return PoolState(pool=YARD.pool(name), restarts={}, **(values | changes))  # type: ignore[arg-type]


def down(name: str, state: str = "down") -> PoolState:
    """Return a pool that no supervisor reports."""
    return pool(name, up=False, ready=False, state=state, slots=0, memory_bytes=0)


def state(
    mail: LaneStats | None = None,
    *pools: PoolState,
    retry: LaneStats | None = None,
    dead: int = 0,
    paused: bool = False,
    scheduler_up: bool = True,
) -> YardState:
    """Return the yard with one queue as given and everything else quiet."""
    stats = (
        QueueStats("mail", mail or lane("mail"), retry or lane("mail-retry"), dead, quarantined=0, paused=paused),
        QueueStats("hooks", lane("hooks"), lane("hooks-retry"), 0, quarantined=0),
    )
    all_pools = {one.name: pool(one.name) for one in YARD.pools}
    return YardState(stats, all_pools | {one.pool.name: one for one in pools}, scheduler_up)


def facts(
    now: YardState,
    running: list[Job] | None = None,
    yard: Yard = YARD,
    failing: Mapping[str, AllFailing] | None = None,
    **held: Any,
) -> YardFacts:
    return YardFacts(now, tuple(yard_rows(yard, now)), running, held, failing or {})


def running(actor: str, pool: str, *, ran_ms: int | None = None) -> Job:
    started_at = None if ran_ms is None else now_ms() - ran_ms
    return Job("1", actor, "mail", "running", attempts=1, started_at=started_at, worker=f"{pool}.h.1.0a1b2c3d.1.1")
