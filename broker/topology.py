"""The dataclasses a yard is declared with. A yard's own declaration is ``project/topology.py``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from broker.errors import InvalidQueueName, UnknownPool, UnknownQueue
from broker.keys.queue_keys import Lane, QueueKeys

RETRY_SUFFIX = "-retry"
ALONE_SUFFIX = "-alone"
DEAD_SUFFIX = "-dead"

PoolKind = Literal["threads", "processes", "gevent"]

# Children with a single slot, for messages that may take them down; executed ones cost more to start.
MOST_ALONE: dict[PoolKind, int] = {"threads": 4, "processes": 4, "gevent": 2}

_SUFFIXES: dict[str, Lane] = {RETRY_SUFFIX: "retry", ALONE_SUFFIX: "alone"}
QUEUE_NAME = re.compile(r"[a-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late a failed message is tried again.

    Args:
        max_retries: Retries after the first attempt; 0 means none.
        base_ms: Longest delay before the first retry.
        cap_ms: Longest delay before any retry.
        backoff: Own function from the number of the retry (1 …) to its delay in ms, taken as it is:
            neither jitter nor cap is added.
    """

    max_retries: int = 5
    base_ms: int = 1_000
    cap_ms: int = 300_000
    backoff: Callable[[int], int] | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with its promise. Its retry lane and dead list come with it.

    Args:
        objective_ms: A message starts within this time; ``None`` promises nothing.
        soft_limit_ms: An exception is raised in a task that runs longer.
        hard_limit_ms: The child that runs a task for longer is killed.
        retry: Policy for actors that name none of their own.
        max_depth: New messages are refused while so many wait or are scheduled; ``None`` takes any number. Retries,
            and what follows a job, are never refused.

    Raises:
        ValueError: ``max_depth`` is below 1.
        InvalidQueueName: the name cannot be part of a key, or would be the key of something else.
    """

    name: str
    objective_ms: int | None
    soft_limit_ms: int
    hard_limit_ms: int
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_depth: int | None = None

    def __post_init__(self) -> None:
        check_queue_name(self.name)
        if self.max_depth is not None and self.max_depth < 1:
            raise ValueError(f"queue {self.name}: max_depth is {self.max_depth}; give it 1 or more, or leave it out")

    @property
    def retry_lane(self) -> str:
        """Queue in which this queue's retries wait."""
        return self.name + RETRY_SUFFIX

    @property
    def alone_lane(self) -> str:
        """Queue in which those wait that may take their worker down. Nobody declares who serves it: see ``runpool``."""
        return self.name + ALONE_SUFFIX

    @property
    def dead_list(self) -> str:
        """List that holds what this queue gave up. Nothing consumes it."""
        return self.name + DEAD_SUFFIX


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of one kind for queues of one latency class.

    Args:
        queues: Queues and retry lanes it serves.
        processes: Children.
        slots: Messages a child runs at once (threads or greenlets).
        prefetch: Messages a child may hold, running ones included; ``None`` is twice the slots.
        nice: Added to the children's niceness, 0 … 19.
        cpus: Numbers of the CPUs that the children may run on; empty for all.
        database_connections: Database connections the pool may open; ``None`` for as many as ``most_running``.
        shared_retries: Serves every retry lane that no pool names.
        recycle_after: Messages after which a child is replaced; ``None`` for never.
        recycle_above_bytes: Resident memory above which it is, its tasks ended in peace; ``None`` for any.
        memory_limit_bytes: Resident memory of a child at most: it starts no message that may not fit, and is replaced.
            One that a task takes over it is killed, and what it ran is suspect; with a single slot the task gets a
            ``MemoryError`` before. ``None`` for any.
    """

    name: str
    kind: PoolKind
    queues: tuple[str, ...]
    processes: int
    slots: int
    prefetch: int | None = None
    nice: int = 0
    database_connections: int | None = None
    shared_retries: bool = False
    recycle_after: int | None = None
    recycle_above_bytes: int | None = None
    memory_limit_bytes: int | None = None
    cpus: tuple[int, ...] = ()

    @property
    def total_slots(self) -> int:
        """Messages the whole pool runs at once."""
        return self.processes * self.slots

    @property
    def most_running(self) -> int:
        """Messages that may run at once at most, each with a database connection.

        Beside the pool's own children those that run what must run alone, and one that replaces another: in any pool,
        when a task is over its hard limit or does not stop.
        """
        return self.total_slots + self.slots + MOST_ALONE.get(self.kind, 0)

    @property
    def most_connections(self) -> int:
        """Database connections the pool may open."""
        return self.most_running if self.database_connections is None else self.database_connections


@dataclass(frozen=True, slots=True)
class Yard:
    """Every queue and every pool of a deployment, declared once and read by everything."""

    queues: tuple[Queue, ...]
    pools: tuple[Pool, ...]

    @property
    def lanes(self) -> tuple[str, ...]:
        """Names of everything a worker may consume: queues and their retry lanes, never a dead list."""
        return tuple(name for queue in self.queues for name in (queue.name, queue.retry_lane))

    def queue_of(self, lane: str) -> Queue:
        """Return the queue a lane belongs to; ``webhook-retry`` and ``webhook-dead`` belong to ``webhook``.

        Raises:
            UnknownQueue: no queue of the yard has that lane.
        """
        for queue in self.queues:
            if lane in (queue.name, queue.retry_lane, queue.alone_lane, queue.dead_list):
                return queue
        raise UnknownQueue(lane, tuple(queue.name for queue in self.queues))

    def pool(self, name: str) -> Pool:
        """Return the pool of that name.

        Raises:
            UnknownPool: the yard has none of that name.
        """
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise UnknownPool(name, tuple(pool.name for pool in self.pools))

    def served_by(self, pool: Pool) -> tuple[str, ...]:
        """Return the lanes a pool consumes, the shared retry lanes included."""
        if not pool.shared_retries:
            return pool.queues
        named = {lane for other in self.pools for lane in other.queues}
        shared = tuple(queue.retry_lane for queue in self.queues if queue.retry_lane not in named)
        return pool.queues + shared

    def pools_of(self, lane: str) -> tuple[Pool, ...]:
        """Return the pools that consume a lane; empty for a dead list."""
        return tuple(pool for pool in self.pools if lane in self.served_by(pool))


def lane_of_name(name: str) -> tuple[str, Lane]:
    """Return the queue that a lane's name belongs to, and which of its lanes it is."""
    for suffix, lane in _SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), lane
    return name, "live"


def check_queue_name(name: str) -> None:
    """Refuse a name that cannot be part of a key, or with which a lane would share the key of something else.

    Raises:
        InvalidQueueName: it is one.
    """
    if not isinstance(name, str) or not QUEUE_NAME.fullmatch(name):
        raise InvalidQueueName(name)
    keys = QueueKeys("", name).all_keys()
    if len(set(keys)) < len(keys):
        raise InvalidQueueName(name)
