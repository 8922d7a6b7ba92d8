"""Mistakes in the declared yard: unknown lanes, mixed latency classes, lanes without a pool."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib.util import find_spec

from django.core.checks import CheckMessage, Error, Warning

from switchyard.broker.topology import ALONE_SUFFIX, DEAD_SUFFIX, RETRY_SUFFIX, WIDEST_CLASS, Yard

TOPOLOGY = "the topology"
IDLE_CHILD_BYTES = 120_000_000  # resident memory of an idle child with all products: 112 to 121 MB were measured


def names_of_lanes(yard: Yard) -> Iterator[CheckMessage]:
    """E011: a queue named as another queue's lane, whether that queue is declared or not."""
    for queue in yard.queues:
        for suffix, word in ((RETRY_SUFFIX, "retry lane"), (ALONE_SUFFIX, "lane of what runs alone")):
            if queue.name.endswith(suffix):
                fact = f"ends in {suffix}, as the {word} of another queue does"
                hint = f"Give the queue a name that does not end in {suffix} in {TOPOLOGY}."
                yield Error(fact, hint, f"queue {queue.name}", "switchyard.E011")


def unserved_lanes(yard: Yard) -> Iterator[CheckMessage]:
    """E007: a queue or a retry lane that no pool consumes, so that its messages would wait for ever."""
    for queue in yard.queues:
        if not yard.pools_of(queue.name):
            fact = "no pool serves it, so its messages would never start"
            hint = f"Add {queue.name!r} to the queues of a pool in {TOPOLOGY}."
            yield Error(fact, hint, f"queue {queue.name}", "switchyard.E007")
        if not yard.pools_of(queue.retry_lane):
            fact = "no pool serves it, so failed messages would never be tried again"
            add = f"add {queue.retry_lane!r} to the queues of a pool"
            hint = f"Give one pool shared_retries=True in {TOPOLOGY}, or {add}."
            yield Error(fact, hint, f"retry lane {queue.retry_lane}", "switchyard.E007")


def consumed_dead_lists(yard: Yard) -> Iterator[CheckMessage]:
    """E011: a dead list that a pool serves, or that is declared as a queue, and so would be consumed."""
    dead = {queue.dead_list: queue.name for queue in yard.queues}
    for pool in yard.pools:
        for lane in (lane for lane in pool.queues if lane in dead):
            list_of = f"serves {lane!r}, the dead list of queue {dead[lane]}"
            fact = f"{list_of}; dead letters wait for people, not for workers"
            remove = f"Remove {lane!r} from the pool's queues in {TOPOLOGY}"
            hint = f"{remove}; requeue with `manage.py switchyard deadletters requeue`."
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E011")
    for name in yard.lanes:
        if name in dead:
            fact = f"has the name of the dead list of queue {dead[name]}, so workers would consume dead letters"
            hint = f"Give the queue a name that does not end in {DEAD_SUFFIX} in {TOPOLOGY}."
            yield Error(fact, hint, f"queue {name}", "switchyard.E011")


def undeclared_lanes(yard: Yard) -> Iterator[CheckMessage]:
    """E001: a pool that serves a lane which no queue of the yard has."""
    known = {name for queue in yard.queues for name in (queue.name, queue.retry_lane, queue.dead_list)}
    alone = {queue.alone_lane: queue.name for queue in yard.queues}
    for pool in yard.pools:
        for lane in (lane for lane in pool.queues if lane not in known):
            fact = f"serves {lane!r}, which no queue declares"
            hint = f"Declare the queue in {TOPOLOGY}, or remove it from the pool."
            if lane in alone:
                fact = f"serves {lane!r}, the lane of what runs alone of queue {alone[lane]}"
                hint = f"Remove it from the pool in {TOPOLOGY}: who serves {alone[lane]!r} serves it as well."
            elif near := difflib.get_close_matches(lane, yard.lanes, n=1):
                hint = f"Did you mean {near[0]!r}? {hint}"
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E001")


def pools_that_watch_everything(yard: Yard) -> Iterator[CheckMessage]:
    """E008: a pool, but a small yard's, that serves every queue, or no lane at all, which Dramatiq treats alike."""
    live = {queue.name for queue in yard.queues}
    hint = f"Name only queues of one latency class in {TOPOLOGY}, or remove the pool."
    for pool in yard.pools:
        served = set(yard.served_by(pool))
        if not served:
            fact = "serves no lane; Dramatiq takes an empty list for every queue there is"
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E008")
        elif len(live) > 1 and live <= served and not yard.is_small:
            fact = f"serves all {len(live)} queues, so one slow kind of work holds up all the others"
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E008")


def mixed_latency_classes(yard: Yard) -> Iterator[CheckMessage]:
    """E009: a pool, but a small yard's, in which urgent work waits behind slow work, or live work behind retries."""
    objectives = {queue.name: queue.objective_ms for queue in yard.queues}
    retry_lanes = {queue.retry_lane for queue in yard.queues}
    hint = (
        f"Give each latency class a pool of its own in {TOPOLOGY}; "
        "retry lanes go to the pool with shared_retries=True or to one of their own."
    )
    for pool in () if yard.is_small else yard.pools:
        served = yard.served_by(pool)
        live = [name for name in served if name in objectives]
        retries = [name for name in served if name in retry_lanes and name not in objectives]
        fact = _spread({name: objectives[name] for name in live})
        if live and retries:
            fact = f"serves the queue {live[0]} together with the retry lane {retries[0]}; a retry storm would delay it"
        if fact:
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E009")


def more_slots_than_connections(yard: Yard) -> Iterator[CheckMessage]:
    """E010: a pool that may run more messages at once than it may open database connections."""
    hint = f"In {TOPOLOGY}, lower processes or slots, or raise database_connections if the database has room for them."
    for pool in yard.pools:
        if pool.most_running > pool.most_connections:
            fact = (
                f"{pool.children} × {pool.slots} slots, and {pool.most_running - pool.total_slots} for what runs alone "
                f"or replaces a child, need {pool.most_running} database connections; "
                f"database_connections is {pool.database_connections}"
            )
            yield Error(fact, hint, f"pool {pool.name}", "switchyard.E010")


def limits_below_an_idle_child(yard: Yard) -> Iterator[CheckMessage]:
    """W009: a memory limit that a child has nearly reached before its first message."""
    hint = f"Raise it in {TOPOLOGY} by what a message takes, for example to {2 * IDLE_CHILD_BYTES:_}."
    for pool in yard.pools:
        if pool.memory_limit_bytes is not None and pool.memory_limit_bytes <= IDLE_CHILD_BYTES:
            fact = (
                f"memory_limit_bytes is {pool.memory_limit_bytes / 1e6:,.0f} MB, and an idle child takes about "
                f"{IDLE_CHILD_BYTES / 1e6:,.0f} MB: it would be replaced after each message"
            )
            yield Warning(fact, hint, f"pool {pool.name}", "switchyard.W009")


def greenlets_without_gevent(yard: Yard) -> Iterator[CheckMessage]:
    """E033: a pool of greenlets where gevent is not installed."""
    hint = f"Install it (`pip install gevent`), or give the pool another kind in {TOPOLOGY}."
    for pool in yard.pools:
        if pool.kind == "gevent" and find_spec("gevent") is None:
            yield Error("is of kind gevent, and gevent is not installed", hint, f"pool {pool.name}", "switchyard.E033")


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
