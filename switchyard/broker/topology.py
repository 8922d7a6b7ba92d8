"""The dataclasses a yard is declared with: queues, pools, policies of retries, alert rules; and checks of their values.

A yard's own declaration is the topology.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from typing import Any, Final, Literal, TypeVar, get_args

from switchyard.broker.errors import InvalidDeclaration, NotFound, UnknownQueue
from switchyard.broker.keys import Keys, Lane, QueueKeys
from switchyard.broker.process import cores_here, memory_here

# One year: a longer delay is a mistake, and a message that is due after the year 9999 cannot be decoded.
LONGEST_DELAY_MS: Final = 366 * 24 * 3_600_000


def require(usable: bool, subject: str, option: str, value: object, remedy: str) -> None:
    """Raise ``InvalidDeclaration`` for a value of a declared object, such as ``queue mail``, that is not usable."""
    if not usable:
        raise InvalidDeclaration(subject, option, value, remedy)


def _check(declared: object, subject: str, option: str, usable: bool, remedy: str) -> None:
    require(usable, subject, option, getattr(declared, option), remedy)


def is_whole(value: Any, *, least: int = 0, most: int | None = None) -> bool:
    """Return whether a value is an ``int`` within limits. A ``bool`` is not accepted."""
    return type(value) is int and value >= least and (most is None or value <= most)


def is_whole_or_none(value: Any, *, least: int = 0) -> bool:
    return value is None or is_whole(value, least=least)


def is_duration(value: Any) -> bool:
    """Return whether a value is a finite number above zero."""
    return type(value) in (int, float) and 0 < value < math.inf


def is_delay(value: Any) -> bool:
    """Return whether a value is a number from 0 to a year, in milliseconds."""
    return type(value) in (int, float) and 0 <= value <= LONGEST_DELAY_MS


def whole_delay(delay_ms: Any) -> Any:
    """Return a delay in whole milliseconds as Dramatiq means it: a negative one is none, a fraction is rounded up.

    A value that is no finite number is returned as it is.
    """
    if type(delay_ms) not in (int, float) or not math.isfinite(delay_ms):
        return delay_ms
    return max(math.ceil(delay_ms), 0)


def takes_arguments(function: Any, count: int) -> bool:
    """Return whether a function takes so many positional arguments. One without a signature is accepted."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


# Retries that a span counts: an actor may declare any number of them.
MOST_COUNTED = 1_000

Backoff = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Number and delays of the retries of a failed message. ``InvalidDeclaration`` for an option that cannot be used.

    A delay is drawn with equal jitter: half of it, plus uniform up to the other half. The default lasts for hours,
    because an outage of what an actor calls does (docs/decisions/0014-retries-outlast-an-outage.md).

    Args:
        max_retries: Retries after the first attempt; 0 means none. Left out with ``delays_ms``.
        base_ms: Longest delay before the first retry; it doubles with each. Left out with ``delays_ms``.
        cap_ms: Longest delay before any retry, ``base_ms`` to one year. Left out with ``delays_ms``.
        delays_ms: Longest delay before each retry, one for each. The last one repeats for an actor that retries more
            often. Empty for ``base_ms`` and ``cap_ms``.
        backoff: Own function from the number of the retry (1 …) to its delay in ms, used as it is: neither jitter nor
            cap is added.
    """

    max_retries: int = 12
    base_ms: int = 5_000
    cap_ms: int = 3_600_000
    delays_ms: tuple[int, ...] = ()
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        check, base_ms = partial(_check, self, "retry policy"), self.base_ms
        check("max_retries", is_whole(self.max_retries), "write a number of retries, 0 for none")
        check("base_ms", is_whole(base_ms), "write milliseconds, 0 or more")
        remedy = f"write milliseconds, from base_ms ({base_ms}) to {LONGEST_DELAY_MS}"
        check("cap_ms", is_whole(self.cap_ms, least=base_ms, most=LONGEST_DELAY_MS), remedy)
        usable = self.backoff is None or takes_arguments(self.backoff, 1)
        check("backoff", usable, "write a function of one argument, the number of the retry")
        usable = isinstance(self.delays_ms, tuple) and all(is_whole(ms, most=LONGEST_DELAY_MS) for ms in self.delays_ms)
        check("delays_ms", usable, "write a tuple of milliseconds, one for each retry, such as (5_000, 300_000)")
        if self.delays_ms:
            remedy = f"leave it out: delays_ms already says when each of its {len(self.delays_ms)} retries comes"
            for option in (option for option in fields(self) if option.name != "delays_ms"):
                check(option.name, getattr(self, option.name) == option.default, remedy)

    @property
    def retries(self) -> int:
        """Retries of a message whose actor names no number of its own."""
        return len(self.delays_ms) or self.max_retries

    def longest_ms(self, retry: int) -> int:
        """Return the longest delay before a retry, counted from 1; the shortest is half of it."""
        if self.delays_ms:
            return self.delays_ms[min(retry, len(self.delays_ms)) - 1]
        return min(self.cap_ms, self.base_ms << min(retry - 1, 30))

    def span_ms(self, *, retries: int | None = None, backoff: Backoff | None = None) -> tuple[int, int]:
        """Return the least and the most time from the first failure to the last retry, without the attempts themselves.

        ``retries`` and ``backoff`` are an actor's own. At most 1,000 retries count; a function is called for each, and
        its answer has no jitter.
        """
        least = most = 0
        for retry in range(1, min(self.retries if retries is None else retries, MOST_COUNTED) + 1):
            own_ms = own_delay(backoff, retry)
            own_ms = own_delay(self.backoff, retry) if own_ms is None else own_ms
            least += self.longest_ms(retry) // 2 if own_ms is None else own_ms
            most += self.longest_ms(retry) if own_ms is None else own_ms
        return least, most


def own_delay(backoff: Backoff | None, retry: int) -> int | None:
    """Return the delay of a project's own function; ``None``, for the policy's, without one and for an unusable answer.

    A retry is not lost for a function.
    """
    if backoff is None:
        return None
    try:
        delay_ms = backoff(retry)
    except Exception:  # noqa: BLE001  the project's own function; the middleware logs it
        return None
    return int(delay_ms) if is_delay(delay_ms) else None


PoolKind = Literal["threads", "processes", "gevent"]
CORES: Final = "cores"

# Children with a single slot, for messages that may take them down; executed ones cost more to start.
MOST_ALONE: dict[PoolKind, int] = {"threads": 4, "processes": 4, "gevent": 2}
# One child at a time is replaced before it ends.
SUCCESSORS = 1
# Resident memory of a supervisor, which loads the project and runs no task: 112 MB were measured.
SUPERVISOR_BYTES = 160 * 2**20

POOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
HIGHEST_NICE = 19


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of one kind for queues of one latency class. ``InvalidDeclaration`` for an option that cannot be used.

    Args:
        queues: Queues and retry lanes that the pool serves.
        processes: Number of children. ``"cores"`` is one for each processor that the pool's process may keep busy, by
            affinity and control group, and as many as its container's memory carries by ``memory_limit_bytes``.
        slots: Messages that a child runs at once (threads or greenlets).
        prefetch: Messages that a child may hold, running ones included; ``None`` is twice the slots.
        nice: Added to the children's niceness, 0 … 19.
        cpus: Numbers of the CPUs that the children may run on; empty for all.
        database_connections: Database connections that the pool may open; ``None`` for as many as ``most_running``.
        shared_retries: The pool serves every retry lane that no pool names.
        recycle_after: Messages after which a child is replaced; ``None`` for no limit.
        recycle_above_bytes: Resident memory above which a child is replaced after its tasks end; ``None`` for no limit.
        isolated: Most children at once for isolated messages; ``None`` is 4, and 2 in a pool of greenlets.
        cores: Number that ``processes="cores"`` stands for; ``None`` measures it.
        memory_limit_bytes: Highest resident memory of a child. It starts no message that may exceed the limit, and is
            replaced instead. A child that a task takes over the limit is killed, and its messages are suspects; with a
            single slot the task gets a ``MemoryError`` first. ``None`` for no limit.
        promises: The same lanes by latency class, the shortest first: of the child's slots, which are no fewer than
            the classes, one is kept for each class above a message's own. :meth:`Yard.small` sets it.
    """

    name: str
    kind: PoolKind
    queues: tuple[str, ...]
    processes: int | Literal["cores"]
    slots: int
    prefetch: int | None = None
    nice: int = 0
    database_connections: int | None = None
    shared_retries: bool = False
    recycle_after: int | None = None
    recycle_above_bytes: int | None = None
    memory_limit_bytes: int | None = None
    cpus: tuple[int, ...] = ()
    isolated: int | None = None
    cores: int | None = None
    promises: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        usable = isinstance(self.name, str) and POOL_NAME.fullmatch(self.name) is not None
        require(usable, "pool", "name", self.name, "write 1 to 64 of a-z, A-Z, 0-9, '_', '.' and '-'")
        check, kinds = partial(_check, self, f"pool {self.name}"), get_args(PoolKind)
        check("kind", self.kind in kinds, f"write one of {', '.join(kinds)}")
        check("queues", _are_names(self.queues), "write a tuple of queue names, each once, such as ('mail',)")
        usable = self.processes == CORES or is_whole(self.processes, least=1)
        check("processes", usable, f"write a number, 1 or more, or {CORES!r}")
        check("slots", is_whole(self.slots, least=1), "write a number, 1 or more")
        for option in (
            "prefetch", "database_connections", "recycle_after", "recycle_above_bytes", "memory_limit_bytes",
            "isolated", "cores",
        ):  # fmt: skip
            unit = "bytes, such as 512_000_000" if option.endswith("_bytes") else "a number, 1 or more"
            check(option, is_whole_or_none(getattr(self, option), least=1), f"write {unit}, or leave it out")
        check("nice", is_whole(self.nice, most=HIGHEST_NICE), f"write a number from 0 to {HIGHEST_NICE}")
        check("shared_retries", type(self.shared_retries) is bool, "write True or False")
        usable = isinstance(self.cpus, tuple) and all(map(is_whole, self.cpus)) and len({*self.cpus}) == len(self.cpus)
        check("cpus", usable, "write a tuple of CPU numbers, each once, such as (0, 1)")
        usable = not self.promises or (tuple(chain(*self.promises)) == self.queues and len(self.promises) <= self.slots)
        check("promises", usable, "leave it out: Yard.small(slots) sets it")

    @property
    def per_core(self) -> bool:
        """Whether ``processes`` is ``"cores"``."""
        return self.processes == CORES

    @property
    def children(self) -> int:
        """Number of children: ``processes``, and for ``"cores"`` what it stands for here."""
        if isinstance(self.processes, int):
            return self.processes
        return self.cores or self.children_on(cores_here(), memory_here())

    def children_on(self, cores: int, memory_bytes: int | None) -> int:
        """Return what ``"cores"`` stands for with so many processors and a container's memory limit, at least 1."""
        if self.cpus:
            cores = min(cores, len(self.cpus))
        if self.memory_limit_bytes and memory_bytes:
            carried = (memory_bytes - SUPERVISOR_BYTES) // self.memory_limit_bytes
            cores = min(cores, carried - self.most_isolated - SUCCESSORS)
        return max(1, cores)

    @property
    def most_isolated(self) -> int:
        """Children for isolated messages that may run at once."""
        return MOST_ALONE.get(self.kind, 0) if self.isolated is None else self.isolated

    @property
    def most_children(self) -> int:
        """Children that may run at once: the pool's own, one successor, and those for isolated messages."""
        return self.children + SUCCESSORS + self.most_isolated

    @property
    def most_memory_bytes(self) -> int | None:
        """Resident memory of the supervisor and all its children at their limit; ``None`` without a limit."""
        return SUPERVISOR_BYTES + self.most_children * self.memory_limit_bytes if self.memory_limit_bytes else None

    @property
    def total_slots(self) -> int:
        """Messages that the whole pool runs at once."""
        return self.children * self.slots

    @property
    def most_running(self) -> int:
        """Messages that may run at once, each with a database connection.

        Counts one successor: every pool starts one when a task exceeds its hard limit or does not stop.
        """
        return self.total_slots + SUCCESSORS * self.slots + self.most_isolated

    @property
    def most_connections(self) -> int:
        """Database connections that the pool may open."""
        return self.most_running if self.database_connections is None else self.database_connections


def _are_names(queues: object) -> bool:
    if not isinstance(queues, tuple) or not all(isinstance(name, str) and name for name in queues):
        return False
    return len(set(queues)) == len(queues)


RETRY_SUFFIX = "-retry"
ALONE_SUFFIX = "-alone"
DEAD_SUFFIX = "-dead"

# Name of the pool of a small yard.
SMALL: Final = "small"
# Objectives further apart than this factor are different latency classes.
WIDEST_CLASS: Final = 4

_SUFFIXES: dict[str, Lane] = {RETRY_SUFFIX: "retry", ALONE_SUFFIX: "alone"}
QUEUE_NAME = re.compile(r"[a-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class FairShare:
    """Tenants of a queue that are served in turn. ``InvalidDeclaration`` for one that cannot be used.

    Args:
        argument: Of the queue's actors; its value is the tenant. Actors without it share one turn.
        weights: Messages that a tenant starts for one of another, by the argument's value; 1 for those left out.
        max_depth: Number of a tenant's waiting messages from which its new ones are refused; ``None`` for no limit. It
            counts no scheduled ones, and concurrent sends may exceed it.
    """

    argument: str
    weights: Mapping[Any, float] = field(default_factory=dict, hash=False)
    max_depth: int | None = None

    def __post_init__(self) -> None:
        subject, check = f"fair by {self.argument}", partial(_check, self, f"fair by {self.argument}")
        usable = isinstance(self.argument, str) and self.argument.isidentifier()
        check("argument", usable, 'write the name of an argument, such as "customer_id"')
        for value, weight in self.weights.items():
            usable = type(weight) in (int, float) and 0.001 <= weight <= 1_000 and isinstance(value, str | int | bool)
            remedy = "write a number from 0.001 to 1,000 for each value of the argument"
            require(usable, subject, "weights", {value: weight}, remedy)
        usable = is_whole_or_none(self.max_depth, least=1)
        check("max_depth", usable, "write a number of messages, 1 or more, or leave it out")


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
        fair_by: Name of an argument of its actors whose values are served in turn, or a ``FairShare`` with weights.
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
    fair_by: str | FairShare = ""

    def __post_init__(self) -> None:
        check_queue_name(self.name)
        check, soft_ms = partial(_check, self, f"queue {self.name}"), self.soft_limit_ms
        usable = is_whole_or_none(self.objective_ms, least=1)
        check("objective_ms", usable, "write milliseconds, 1 or more, or None")
        check("soft_limit_ms", is_whole(soft_ms, least=1), "write milliseconds, 1 or more")
        remedy = f"write milliseconds above soft_limit_ms ({soft_ms}): a task is interrupted before its child is killed"
        check("hard_limit_ms", is_whole(self.hard_limit_ms, least=soft_ms + 1), remedy)
        check("retry", isinstance(self.retry, RetryPolicy), "write a RetryPolicy(...)")
        least_ms = self.objective_ms or 1
        remedy = f"write milliseconds, {least_ms} or more, since a message ends after its start, or leave it out"
        check("done_objective_ms", is_whole_or_none(self.done_objective_ms, least=least_ms), remedy)
        usable = is_whole_or_none(self.max_depth, least=1)
        check("max_depth", usable, "write a number of messages, 1 or more, or leave it out")
        remedy = 'write the service in a few words, such as "mail server", or leave it out'
        check("calls", isinstance(self.calls, str), remedy)
        usable = isinstance(self.slot_group, str) and bool(not self.slot_group or QUEUE_NAME.fullmatch(self.slot_group))
        check("slot_group", usable, "write 1 to 64 of a-z0-9_.-, or leave it out")
        usable = isinstance(self.fair_by, FairShare) or self.fair_by == "" or str(self.fair_by).isidentifier()
        check("fair_by", usable, 'write the name of an argument, or FairShare("customer_id")')

    @property
    def retry_lane(self) -> str:
        """Queue in which this queue's retries wait."""
        return self.name + RETRY_SUFFIX

    @property
    def alone_lane(self) -> str:
        """Queue of the messages that may crash their worker. Every pool serves those of its queues, see ``runpool``."""
        return self.name + ALONE_SUFFIX

    @property
    def fair_share(self) -> FairShare | None:
        """Whom it serves in turn; ``None`` for a queue that serves its messages in their order."""
        if isinstance(self.fair_by, FairShare):
            return self.fair_by
        return FairShare(self.fair_by) if self.fair_by else None

    @property
    def dead_list(self) -> str:
        """List of this queue's dead letters. Nothing consumes it."""
        return self.name + DEAD_SUFFIX


@dataclass(frozen=True, slots=True)
class AlertRule:
    """When and where people are called about findings of a name. ``InvalidDeclaration`` for one that cannot be used.

    Args:
        finding: Name, such as ``queues.late``, ``dead_letter`` or ``broker.away``; ``*`` stands for any characters.
        after_s: Seconds that a finding must last; ``None`` leaves that to the table of defaults. Not of dead letters
            and the broker, which are sent at once.
        channels: Labels of SWITCHYARD_ALERT_URLS; empty for every channel.
        escalate_after_s: Seconds without an acknowledgement after which the alert goes to ``escalate_to`` as well.
        escalate_to: Labels of further channels.
    """

    finding: str
    after_s: float | None = None
    channels: tuple[str, ...] = ()
    escalate_after_s: float | None = None
    escalate_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        usable = isinstance(self.finding, str) and self.finding != ""
        require(usable, "alert rule", "finding", self.finding, 'write the name of a finding, such as "queues.late"')
        check = partial(_check, self, f"alert rule of {self.finding}")
        for option in ("after_s", "escalate_after_s"):
            value = getattr(self, option)
            usable = value is None or value == 0 or is_duration(value)
            check(option, usable, "write seconds, 0 or more, or leave it out")
        for option in ("channels", "escalate_to"):
            usable = _are_names(getattr(self, option))
            check(option, usable, 'write a tuple of labels, each once, such as ("oncall",)')
        usable = bool(self.escalate_to) == (self.escalate_after_s is not None)
        check("escalate_to", usable, "write both escalate_after_s and escalate_to, or leave both out")


CLOCK_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that actors call and that may be down, with when its circuit opens. Actors name it in ``depends_on``.

    Counted by queue: each learns by itself. ``InvalidDeclaration`` for an option that cannot be used.

    Args:
        name: 1 to 64 of a-z, 0-9, ``_``, ``.`` and ``-``.
        failures: Share of the calls at which it opens, above 0 to 1.
        least: Calls from which on it may open.
        window_ms: Calls count for so long from the first failure on; then counting begins anew.
        open_ms: Time until the first probe. It doubles with each probe that fails.
        longest_open_ms: Longest time until a probe, ``open_ms`` or more.
        probes: Probes that must succeed, one after the other, before it closes.
    """

    name: str
    failures: float = 0.5
    least: int = 10
    window_ms: int = 30_000
    open_ms: int = 2_000
    longest_open_ms: int = 10_000
    probes: int = 1

    def __post_init__(self) -> None:
        usable = isinstance(self.name, str) and QUEUE_NAME.fullmatch(self.name) is not None
        require(usable, "dependency", "name", self.name, "write 1 to 64 of a-z, 0-9, '_', '.' and '-'")
        check = partial(_check, self, f"dependency {self.name}")
        usable = is_duration(self.failures) and self.failures <= 1
        check("failures", usable, "write a share above 0, up to 1, such as 0.5")
        for option in ("least", "probes", "window_ms", "open_ms"):
            unit = "milliseconds" if option.endswith("_ms") else "a number"
            usable = is_whole(getattr(self, option), least=1, most=LONGEST_DELAY_MS)
            check(option, usable, f"write {unit}, 1 or more")
        usable = is_whole(self.longest_open_ms, least=self.open_ms, most=LONGEST_DELAY_MS)
        check("longest_open_ms", usable, f"write milliseconds, from open_ms ({self.open_ms}) to {LONGEST_DELAY_MS}")


T = TypeVar("T", Pool, Dependency)


@dataclass(frozen=True, slots=True)
class Yard:
    """All queues and pools of a deployment. ``InvalidDeclaration`` when two have one name.

    ``retry_speed`` divides the delays of policies, so that a demo or a test shows hours in seconds; only 1 is accepted
    in production. Of ``alerts`` the first rule that matches a finding counts. From the first to the second of
    ``quiet_hours``, in Django's time zone, alerts that are not critical wait. ``dependencies`` have circuits.
    """

    queues: tuple[Queue, ...]
    pools: tuple[Pool, ...]
    retry_speed: int = 1
    alerts: tuple[AlertRule, ...] = ()
    quiet_hours: tuple[str, str] | None = None
    dependencies: tuple[Dependency, ...] = ()

    def __post_init__(self) -> None:
        check, hours = partial(_check, self, "yard"), self.quiet_hours
        check("retry_speed", is_whole(self.retry_speed, least=1), "write a number, 1 or more, or leave it out")
        usable = hours is None or (isinstance(hours, tuple) and len({*map(str, hours)}) == len(hours) == 2)
        usable = usable and all(CLOCK_TIME.fullmatch(str(time)) for time in hours or ())
        check("quiet_hours", usable, 'write two different times, such as ("22:00", "07:00"), or leave it out')
        for option, kind in DECLARED:
            entries = getattr(self, option)
            usable = isinstance(entries, tuple) and all(isinstance(entry, kind) for entry in entries)
            check(option, usable, f"write a tuple of {kind.__name__}(...)")
            if kind is AlertRule:
                continue
            names = [entry.name for entry in entries]
            twice = sorted({name for name in names if names.count(name) > 1})
            subject = f"{kind.__name__.lower()} {', '.join(twice)}"
            require(not twice, subject, "name", ", ".join(twice), "rename all but one: names are unique in a yard")

    @property
    def promises(self) -> tuple[tuple[str, ...], ...]:
        """The lanes by latency class, the shortest objective first; last what has none, retry lanes among them."""
        classes: list[list[str]] = []
        shortest_ms = 0
        promised = [(queue.objective_ms, queue.name) for queue in self.queues if queue.objective_ms is not None]
        for objective_ms, name in sorted(promised, key=lambda each: each[0]):
            if not classes or objective_ms > WIDEST_CLASS * shortest_ms:
                classes.append([])
                shortest_ms = objective_ms
            classes[-1].append(name)
        without = [queue.name for queue in self.queues if queue.objective_ms is None]
        classes.append([*without, *(queue.retry_lane for queue in self.queues)])
        return tuple(map(tuple, classes))

    def small(self, slots: int) -> Yard:
        """Return the yard for a small machine: one pool that serves its queues in the order of their promises.

        A child of it has the highest memory limit of the declared pools, and their shortest life.

        Args:
            slots: Messages that run at once: at least one for each latency class, the retries' included.

        Raises:
            InvalidDeclaration: too few slots.
        """
        promises = self.promises
        remedy = f"write {len(promises)} or more, one for each of {'; '.join(map(', '.join, promises))}"
        require(is_whole(slots, least=len(promises)), "small yard", "slots", slots, remedy)
        limits = [pool.memory_limit_bytes for pool in self.pools if pool.memory_limit_bytes is not None]
        pool = Pool(
            SMALL,
            "threads",
            tuple(chain(*promises)),
            processes=1,
            slots=slots,
            prefetch=slots,
            promises=promises,
            isolated=1,
            recycle_after=min((pool.recycle_after for pool in self.pools if pool.recycle_after), default=None),
            memory_limit_bytes=max(limits) if limits and len(limits) == len(self.pools) else None,
        )
        return replace(self, pools=(pool,))

    @property
    def is_small(self) -> bool:
        """Whether its only pool keeps slots for the shorter promises."""
        return len(self.pools) == 1 and bool(self.pools[0].promises)

    @property
    def keys(self) -> Keys:
        return Keys(slot_groups=tuple((queue.name, queue.slot_group) for queue in self.queues if queue.slot_group))

    def with_cores(self, cores: int) -> Yard:
        """Return the yard in which ``processes="cores"`` stands for a number, on whatever machine."""
        return replace(self, pools=tuple(replace(p, cores=cores) if p.per_core else p for p in self.pools))

    def alert_rule(self, finding: str) -> AlertRule | None:
        """Return the rule of a finding's name; ``None`` where no rule matches it."""
        return next((rule for rule in self.alerts if fnmatchcase(finding, rule.finding)), None)

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

    def dependency(self, name: str) -> Dependency:
        """Return the dependency of that name. Raises ``NotFound``."""
        return _of_name("dependency", name, self.dependencies)

    def pool(self, name: str) -> Pool:
        """Return the pool of that name. Raises ``NotFound``."""
        return _of_name("pool", name, self.pools)

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


def _of_name(kind: str, name: str, declared: Sequence[T]) -> T:
    for each in declared:
        if each.name == name:
            return each
    names = ", ".join(each.name for each in declared) or "none"
    raise NotFound(f"{kind} {name!r} is not declared; the yard has {names}; see the topology")


DECLARED: Final = (("alerts", AlertRule), ("queues", Queue), ("pools", Pool), ("dependencies", Dependency))


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
            "notes, unique, swept, paused, pauses, yields, refused)"
        )
        raise InvalidDeclaration("queue", "name", name, remedy)
