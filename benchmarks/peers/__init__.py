"""The libraries that are measured side by side, and what each needs. Standard library only: all environments read it.

A peer is an adapter, a module of this package, under one configuration. An adapter has ``enqueue(task)``, plain or
async; ``enqueue_many(tasks)`` if the library has it; and ``worker_command(slots)``, the arguments of its interpreter
that start a worker of so many tasks at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Peer:
    """One library under one configuration.

    Args:
        adapter: Module of this package.
        title: Name in tables.
        environment: Variables that make the configuration.
        backlog: Tasks that it drains in a few seconds.
        keeps_work: A task stays on the server until it is done, so that a killed worker loses none.
        bulk: The library enqueues many at once.
        language: What its workers are written in.
        needs: What must be on the machine.
        whole_stack: Carries everything that Switchyard puts around a task.
    """

    name: str
    adapter: str
    title: str
    environment: dict[str, str] = field(default_factory=dict)
    backlog: int = 10_000
    keeps_work: bool = True
    bulk: bool = False
    language: Literal["python", "node"] = "python"
    needs: Literal["", "postgres", "node", "streams-checkout"] = ""
    whole_stack: bool = False


OURS = (
    Peer("switchyard", "switchyard", "Switchyard, Dramatiq's default middleware", backlog=40_000),
    Peer(
        "switchyard-stack",
        "switchyard",
        "Switchyard, whole stack",
        {"BENCH_STACK": "1"},
        backlog=20_000,
        whole_stack=True,
    ),
)
STOCK = Peer("dramatiq", "dramatiq", "Dramatiq")
OTHERS = (
    STOCK,
    Peer("dramatiq-64", "dramatiq", "Dramatiq, prefetch 64", {"dramatiq_queue_prefetch": "64"}, backlog=15_000),
    Peer("dramatiq-512", "dramatiq", "Dramatiq, prefetch 512", {"dramatiq_queue_prefetch": "512"}, backlog=15_000),
)
PEERS = {peer.name: peer for peer in (*OURS, *OTHERS)}
