"""Mistakes in the pools of a yard: unknown lanes, mixed latency classes, too few database connections."""

from __future__ import annotations

import difflib
from importlib.util import find_spec

from django.core.checks import CheckMessage, Error, Warning

from switchyard.broker.topology import Yard
from switchyard.workers.checks.queues import TOPOLOGY

WIDEST_CLASS = 4
"""Objectives further apart than this factor are different latency classes."""
IDLE_CHILD_BYTES = 120_000_000
"""Resident memory of an idle child with all products: 112 to 121 MB were measured."""


def undeclared_lanes(yard: Yard) -> list[CheckMessage]:
    """E001: a pool that serves a lane which no queue of the yard has."""
    known = {name for queue in yard.queues for name in (queue.name, queue.retry_lane, queue.dead_list)}
    alone = {queue.alone_lane: queue.name for queue in yard.queues}
    found: list[CheckMessage] = []
    for pool in yard.pools:
        for lane in pool.queues:
            if lane in known:
                continue
            fact = f"serves {lane!r}, which no queue declares"
            hint = f"Declare the queue in {TOPOLOGY}, or remove it from the pool."
            if lane in alone:
                fact = f"serves {lane!r}, the lane of what runs alone of queue {alone[lane]}"
                hint = f"Remove it from the pool in {TOPOLOGY}: who serves {alone[lane]!r} serves it as well."
            elif near := difflib.get_close_matches(lane, yard.lanes, n=1):
                hint = f"Did you mean {near[0]!r}? {hint}"
            found.append(Error(fact, hint=hint, obj=f"pool {pool.name}", id="switchyard.E001"))
    return found


def pools_that_watch_everything(yard: Yard) -> list[CheckMessage]:
    """E008: a pool that serves every queue, or no lane at all, which Dramatiq treats as every queue."""
    found: list[CheckMessage] = []
    live = {queue.name for queue in yard.queues}
    for pool in yard.pools:
        served = set(yard.served_by(pool))
        if not served:
            fact = "serves no lane; Dramatiq takes an empty list for every queue there is"
        elif len(live) > 1 and live <= served:
            fact = f"serves all {len(live)} queues, so one slow kind of work holds up all the others"
        else:
            continue
        found.append(
            Error(
                fact,
                hint=f"Name only queues of one latency class in {TOPOLOGY}, or remove the pool.",
                obj=f"pool {pool.name}",
                id="switchyard.E008",
            )
        )
    return found


def mixed_latency_classes(yard: Yard) -> list[CheckMessage]:
    """E009: a pool in which urgent work waits behind slow work, or live work behind retries."""
    found: list[CheckMessage] = []
    objectives = {queue.name: queue.objective_ms for queue in yard.queues}
    retry_lanes = {queue.retry_lane for queue in yard.queues}
    for pool in yard.pools:
        served = yard.served_by(pool)
        live = [name for name in served if name in objectives]
        retries = [name for name in served if name in retry_lanes and name not in objectives]
        fact = _spread({name: objectives[name] for name in live})
        if live and retries:
            fact = f"serves the queue {live[0]} together with the retry lane {retries[0]}; a retry storm would delay it"
        if fact:
            found.append(
                Error(
                    fact,
                    hint=f"Give each latency class a pool of its own in {TOPOLOGY}; "
                    "retry lanes go to the pool with shared_retries=True or to one of their own.",
                    obj=f"pool {pool.name}",
                    id="switchyard.E009",
                )
            )
    return found


def more_slots_than_connections(yard: Yard) -> list[CheckMessage]:
    """E010: a pool that may run more messages at once than it may open database connections."""
    return [
        Error(
            f"{pool.children} × {pool.slots} slots, and {pool.most_running - pool.total_slots} for what runs alone or "
            f"replaces a child, need {pool.most_running} database connections; "
            f"database_connections is {pool.database_connections}",
            hint=f"In {TOPOLOGY}, lower processes or slots, or raise database_connections "
            "if the database has room for them.",
            obj=f"pool {pool.name}",
            id="switchyard.E010",
        )
        for pool in yard.pools
        if pool.most_running > pool.most_connections
    ]


def limits_below_an_idle_child(yard: Yard) -> list[CheckMessage]:
    """W009: a memory limit that a child has nearly reached before its first message."""
    return [
        Warning(
            f"memory_limit_bytes is {_size(pool.memory_limit_bytes)}, and an idle child takes about "
            f"{IDLE_CHILD_BYTES / 1e6:,.0f} MB: it would be replaced after each message",
            hint=f"Raise it in {TOPOLOGY} by what a message takes, for example to {2 * IDLE_CHILD_BYTES:_}.",
            obj=f"pool {pool.name}",
            id="switchyard.W009",
        )
        for pool in yard.pools
        if pool.memory_limit_bytes is not None and pool.memory_limit_bytes <= IDLE_CHILD_BYTES
    ]


def greenlets_without_gevent(yard: Yard) -> list[CheckMessage]:
    """E033: a pool of greenlets where gevent is not installed."""
    if find_spec("gevent") is not None:
        return []
    return [
        Error(
            "is of kind gevent, and gevent is not installed",
            hint=f"Install it (`pip install gevent`), or give the pool another kind in {TOPOLOGY}.",
            obj=f"pool {pool.name}",
            id="switchyard.E033",
        )
        for pool in yard.pools
        if pool.kind == "gevent"
    ]


def _size(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count:,} bytes"


def _spread(objectives: dict[str, int | None]) -> str:
    """Return why one pool must not serve these queues together, or ``""``."""
    promised = {name: objective for name, objective in objectives.items() if objective is not None}
    if not promised:
        return ""
    strict, loose = min(promised, key=promised.__getitem__), max(promised, key=promised.__getitem__)
    if promised[loose] > WIDEST_CLASS * promised[strict]:
        return (
            f"mixes {strict} (objective {promised[strict]} ms) with {loose} (objective {promised[loose]} ms); "
            f"more than {WIDEST_CLASS} times apart"
        )
    without = [name for name, objective in objectives.items() if objective is None]
    if without:
        return f"mixes {strict} (objective {promised[strict]} ms) with {without[0]}, which has no objective"
    return ""
