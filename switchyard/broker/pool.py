"""The dataclass a pool is declared with: its children, and what they may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from switchyard.broker.cores import cores_here, memory_here
from switchyard.broker.validation import is_whole, is_whole_or_none, require

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

    def __post_init__(self) -> None:
        usable = isinstance(self.name, str) and POOL_NAME.fullmatch(self.name) is not None
        require(usable, "pool", "name", self.name, "write 1 to 64 of a-z, A-Z, 0-9, '_', '.' and '-'")
        subject, kinds = f"pool {self.name}", get_args(PoolKind)
        require(self.kind in kinds, subject, "kind", self.kind, f"write one of {', '.join(kinds)}")
        remedy = "write a tuple of queue names, each once, such as ('mail',)"
        require(_are_names(self.queues), subject, "queues", self.queues, remedy)
        usable = self.processes == CORES or is_whole(self.processes, least=1)
        require(usable, subject, "processes", self.processes, f"write a number, 1 or more, or {CORES!r}")
        require(is_whole(self.slots, least=1), subject, "slots", self.slots, "write a number, 1 or more")
        for option in (
            "prefetch", "database_connections", "recycle_after", "recycle_above_bytes", "memory_limit_bytes",
            "isolated", "cores",
        ):  # fmt: skip
            value = getattr(self, option)
            unit = "bytes, such as 512_000_000" if option.endswith("_bytes") else "a number, 1 or more"
            remedy = f"write {unit}, or leave it out"
            require(is_whole_or_none(value, least=1), subject, option, value, remedy)
        usable = is_whole(self.nice, most=HIGHEST_NICE)
        require(usable, subject, "nice", self.nice, f"write a number from 0 to {HIGHEST_NICE}")
        require(
            type(self.shared_retries) is bool, subject, "shared_retries", self.shared_retries, "write True or False"
        )
        remedy = "write a tuple of CPU numbers, each once, such as (0, 1)"
        require(_are_cpus(self.cpus), subject, "cpus", self.cpus, remedy)

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


def _are_cpus(cpus: object) -> bool:
    return isinstance(cpus, tuple) and all(is_whole(cpu) for cpu in cpus) and len(set(cpus)) == len(cpus)
