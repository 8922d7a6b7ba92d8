"""Mistakes in the queues of a yard: names of lanes, lanes without a pool, dead lists with one."""

from __future__ import annotations

from django.core.checks import CheckMessage, Error

from switchyard.broker.topology import ALONE_SUFFIX, DEAD_SUFFIX, RETRY_SUFFIX, Yard

TOPOLOGY = "the topology"


def names_of_lanes(yard: Yard) -> list[CheckMessage]:
    """E011: a queue named as another queue's lane, whether that queue is declared or not."""
    return [
        Error(
            f"ends in {suffix}, as the {word} of another queue does",
            hint=f"Give the queue a name that does not end in {suffix} in {TOPOLOGY}.",
            obj=f"queue {queue.name}",
            id="switchyard.E011",
        )
        for queue in yard.queues
        for suffix, word in ((RETRY_SUFFIX, "retry lane"), (ALONE_SUFFIX, "lane of what runs alone"))
        if queue.name.endswith(suffix)
    ]


def unserved_lanes(yard: Yard) -> list[CheckMessage]:
    """E007: a queue or a retry lane that no pool consumes, so that its messages would wait for ever."""
    found: list[CheckMessage] = []
    for queue in yard.queues:
        if not yard.pools_of(queue.name):
            found.append(
                Error(
                    "no pool serves it, so its messages would never start",
                    hint=f"Add {queue.name!r} to the queues of a pool in {TOPOLOGY}.",
                    obj=f"queue {queue.name}",
                    id="switchyard.E007",
                )
            )
        if not yard.pools_of(queue.retry_lane):
            found.append(
                Error(
                    "no pool serves it, so failed messages would never be tried again",
                    hint=f"Give one pool shared_retries=True in {TOPOLOGY}, "
                    f"or add {queue.retry_lane!r} to the queues of a pool.",
                    obj=f"retry lane {queue.retry_lane}",
                    id="switchyard.E007",
                )
            )
    return found


def consumed_dead_lists(yard: Yard) -> list[CheckMessage]:
    """E011: a dead list that a pool serves, or that is declared as a queue, and so would be consumed."""
    dead = {queue.dead_list: queue.name for queue in yard.queues}
    found: list[CheckMessage] = [
        Error(
            f"serves {lane!r}, the dead list of queue {dead[lane]}; dead letters wait for people, not for workers",
            hint=f"Remove {lane!r} from the pool's queues in {TOPOLOGY}; requeue with "
            "`manage.py switchyard deadletters requeue`.",
            obj=f"pool {pool.name}",
            id="switchyard.E011",
        )
        for pool in yard.pools
        for lane in pool.queues
        if lane in dead
    ]
    found += [
        Error(
            f"has the name of the dead list of queue {dead[name]}, so workers would consume dead letters",
            hint=f"Give the queue a name that does not end in {DEAD_SUFFIX} in {TOPOLOGY}.",
            obj=f"queue {name}",
            id="switchyard.E011",
        )
        for name in yard.lanes
        if name in dead
    ]
    return found
