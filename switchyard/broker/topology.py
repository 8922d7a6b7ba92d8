"""The dataclasses a yard is declared with. A yard's own declaration is the topology."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from switchyard.broker.errors import InvalidDeclaration, NotFound, UnknownQueue
from switchyard.broker.keys.keys import Keys
from switchyard.broker.keys.queue_keys import Lane, QueueKeys
from switchyard.broker.pool import MOST_ALONE as MOST_ALONE
from switchyard.broker.pool import Pool as Pool
from switchyard.broker.pool import PoolKind as PoolKind
from switchyard.broker.retry_policy import RetryPolicy as RetryPolicy
from switchyard.broker.validation import is_whole, is_whole_or_none, require

RETRY_SUFFIX = "-retry"
ALONE_SUFFIX = "-alone"
DEAD_SUFFIX = "-dead"

_SUFFIXES: dict[str, Lane] = {RETRY_SUFFIX: "retry", ALONE_SUFFIX: "alone"}
QUEUE_NAME = re.compile(r"[a-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with its objective and limits. Its retry lane and dead list come with it.

    ``InvalidDeclaration`` for an option that cannot be used, and for a name that cannot be part of a key.

    Args:
        objective_ms: Longest time until a message starts; ``None`` for no objective.
        soft_limit_ms: Run time after which an exception is raised in a task.
        hard_limit_ms: Run time after which the child that runs a task is killed; above the soft limit.
        retry: Policy for actors that name none of their own.
        max_depth: Number of waiting and scheduled messages from which new ones are refused; ``None`` for no limit.
            Retries, pipeline steps and callbacks are never refused.
        done_objective_ms: Longest time until a message ends, from when it is ready, at least ``objective_ms``;
            ``None`` for no such objective. Retries do not count.
        calls: Service that its actors depend on and that may be away, in a few words for people, such as
            ``mail server``. A check warns when their retries are over within 15 minutes.
        slot_group: Hash tag of its keys instead of its name: it decides the place. Queues of one slot group
            are on one node. Changing it leaves messages under the old keys.
    """

    name: str
    objective_ms: int | None
    soft_limit_ms: int
    hard_limit_ms: int
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_depth: int | None = None
    calls: str = ""
    done_objective_ms: int | None = None
    slot_group: str = ""

    def __post_init__(self) -> None:
        check_queue_name(self.name)
        subject, objective_ms, depth = f"queue {self.name}", self.objective_ms, self.max_depth
        soft_ms, hard_ms = self.soft_limit_ms, self.hard_limit_ms
        usable = is_whole_or_none(objective_ms, least=1)
        require(usable, subject, "objective_ms", objective_ms, "write milliseconds, 1 or more, or None")
        require(is_whole(soft_ms, least=1), subject, "soft_limit_ms", soft_ms, "write milliseconds, 1 or more")
        remedy = f"write milliseconds above soft_limit_ms ({soft_ms}): a task is interrupted before its child is killed"
        require(is_whole(hard_ms, least=soft_ms + 1), subject, "hard_limit_ms", hard_ms, remedy)
        require(isinstance(self.retry, RetryPolicy), subject, "retry", self.retry, "write a RetryPolicy(...)")
        done_ms = self.done_objective_ms
        usable = is_whole_or_none(done_ms, least=objective_ms or 1)
        remedy = (
            f"write milliseconds, {objective_ms or 1} or more, since a message ends after its start, or leave it out"
        )
        require(usable, subject, "done_objective_ms", done_ms, remedy)
        usable = is_whole_or_none(depth, least=1)
        require(usable, subject, "max_depth", depth, "write a number of messages, 1 or more, or leave it out")
        remedy = 'write the service in a few words, such as "mail server", or leave it out'
        require(isinstance(self.calls, str), subject, "calls", self.calls, remedy)
        group = self.slot_group
        usable = isinstance(group, str) and (group == "" or QUEUE_NAME.fullmatch(group) is not None)
        require(usable, subject, "slot_group", group, "write 1 to 64 of a-z0-9_.-, or leave it out")

    @property
    def retry_lane(self) -> str:
        """Queue in which this queue's retries wait."""
        return self.name + RETRY_SUFFIX

    @property
    def alone_lane(self) -> str:
        """Queue of the messages that may crash their worker. Every pool serves those of its queues, see ``runpool``."""
        return self.name + ALONE_SUFFIX

    @property
    def dead_list(self) -> str:
        """List of this queue's dead letters. Nothing consumes it."""
        return self.name + DEAD_SUFFIX


@dataclass(frozen=True, slots=True)
class Yard:
    """All queues and pools of a deployment. ``InvalidDeclaration`` when two have one name.

    ``retry_speed`` divides the delays of policies, so that a demo or a test shows hours in seconds; only 1 is accepted
    in production.
    """

    queues: tuple[Queue, ...]
    pools: tuple[Pool, ...]
    retry_speed: int = 1

    def __post_init__(self) -> None:
        usable = is_whole(self.retry_speed, least=1)
        require(usable, "yard", "retry_speed", self.retry_speed, "write a number, 1 or more, or leave it out")
        for option, kind in (("queues", Queue), ("pools", Pool)):
            entries = getattr(self, option)
            usable = isinstance(entries, tuple) and all(isinstance(entry, kind) for entry in entries)
            require(usable, "yard", option, entries, f"write a tuple of {kind.__name__}(...)")
            names = [entry.name for entry in entries]
            twice = sorted({name for name in names if names.count(name) > 1})
            subject = f"{kind.__name__.lower()} {', '.join(twice)}"
            require(not twice, subject, "name", ", ".join(twice), "rename all but one: names are unique in a yard")

    @property
    def keys(self) -> Keys:
        """Names of the keys of this yard."""
        return Keys(slot_groups=tuple((queue.name, queue.slot_group) for queue in self.queues if queue.slot_group))

    def hurried(self, retry_speed: int) -> Yard:
        """Return the same yard with the delays of its retries divided by a number."""
        return replace(self, retry_speed=retry_speed)

    def with_cores(self, cores: int) -> Yard:
        """Return the yard in which ``processes="cores"`` stands for a number, on whatever machine."""
        return replace(self, pools=tuple(replace(p, cores=cores) if p.per_core else p for p in self.pools))

    @property
    def lanes(self) -> tuple[str, ...]:
        """Names of the queues and their retry lanes, which workers may consume; no dead list."""
        return tuple(name for queue in self.queues for name in (queue.name, queue.retry_lane))

    def queue_of(self, lane: str) -> Queue:
        """Return the queue of a lane, such as ``webhook`` of ``webhook-retry``. Raises ``UnknownQueue``."""
        for queue in self.queues:
            if lane in (queue.name, queue.retry_lane, queue.alone_lane, queue.dead_list):
                return queue
        raise UnknownQueue(lane, tuple(queue.name for queue in self.queues))

    def pool(self, name: str) -> Pool:
        """Return the pool of that name. Raises ``NotFound``."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        declared = ", ".join(pool.name for pool in self.pools)
        raise NotFound(f"pool {name!r} is not declared; the yard has {declared}; see the topology")

    def served_by(self, pool: Pool) -> tuple[str, ...]:
        """Return the lanes that a pool consumes, the shared retry lanes included."""
        if not pool.shared_retries:
            return pool.queues
        named = {lane for other in self.pools for lane in other.queues}
        shared = tuple(queue.retry_lane for queue in self.queues if queue.retry_lane not in named)
        return pool.queues + shared

    def pools_of(self, lane: str) -> tuple[Pool, ...]:
        """Return the pools that consume a lane; empty for a dead list."""
        return tuple(pool for pool in self.pools if lane in self.served_by(pool))


def lane_of_name(name: str) -> tuple[str, Lane]:
    """Return the name of a lane's queue, and the kind of the lane."""
    for suffix, lane in _SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), lane
    return name, "live"


def check_queue_name(name: str) -> None:
    """Refuse, by ``InvalidDeclaration``, a name that cannot be part of a key or whose lanes would share another key."""
    keys = QueueKeys("", name).all_keys() if isinstance(name, str) and QUEUE_NAME.fullmatch(name) else []
    if not keys or len(set(keys)) < len(keys):
        remedy = (
            "use 1 to 64 of a-z, 0-9, '_', '.' and '-', and none of the broker's own words (bodies, leases, token, "
            "notes, unique, swept, paused, refused)"
        )
        raise InvalidDeclaration("queue", "name", name, remedy)
