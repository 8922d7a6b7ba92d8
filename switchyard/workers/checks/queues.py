"""Mistakes in the queues of a yard: names of lanes, lanes without a pool, dead lists with one."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error

from switchyard.broker.topology import ALONE_SUFFIX, DEAD_SUFFIX, RETRY_SUFFIX, Yard

TOPOLOGY = "the topology"


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
            hint = (
                f"Give one pool shared_retries=True in {TOPOLOGY}, or add {queue.retry_lane!r} to the queues of a pool."
            )
            yield Error(fact, hint, f"retry lane {queue.retry_lane}", "switchyard.E007")


def consumed_dead_lists(yard: Yard) -> Iterator[CheckMessage]:
    """E011: a dead list that a pool serves, or that is declared as a queue, and so would be consumed."""
    dead = {queue.dead_list: queue.name for queue in yard.queues}
    for pool in yard.pools:
        for lane in pool.queues:
            if lane in dead:
                yield Error(
                    f"serves {lane!r}, the dead list of queue {dead[lane]}; "
                    "dead letters wait for people, not for workers",
                    f"Remove {lane!r} from the pool's queues in {TOPOLOGY}; requeue with "
                    "`manage.py switchyard deadletters requeue`.",
                    f"pool {pool.name}",
                    "switchyard.E011",
                )
    for name in yard.lanes:
        if name in dead:
            fact = f"has the name of the dead list of queue {dead[name]}, so workers would consume dead letters"
            hint = f"Give the queue a name that does not end in {DEAD_SUFFIX} in {TOPOLOGY}."
            yield Error(fact, hint, f"queue {name}", "switchyard.E011")
