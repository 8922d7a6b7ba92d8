"""Mistakes in the queues of a yard: names that clash, limits that cannot hold, lanes that nobody serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from django.core.checks import CheckMessage, Error

from broker.topology import ALONE_SUFFIX, DEAD_SUFFIX, RETRY_SUFFIX, Yard

TOPOLOGY = "project/topology.py"


def duplicate_names(yard: Yard) -> list[CheckMessage]:
    """E012: two queues or two pools of one name, or a queue named as another's lane."""
    found: list[CheckMessage] = [
        Error(
            f"{count} queues have this name",
            hint=f"Rename all but one in {TOPOLOGY}.",
            obj=f"queue {name}",
            id="switchyard.E012",
        )
        for name, count in _repeated(queue.name for queue in yard.queues)
    ]
    # The broker takes such a name for a lane of another queue, whether that is declared or not.
    found += [
        Error(
            f"ends in {suffix}, as the {word} of another queue does",
            hint=f"Give the queue a name that does not end in {suffix} in {TOPOLOGY}.",
            obj=f"queue {queue.name}",
            id="switchyard.E012",
        )
        for queue in yard.queues
        for suffix, word in ((RETRY_SUFFIX, "retry lane"), (ALONE_SUFFIX, "lane of what runs alone"))
        if queue.name.endswith(suffix)
    ]
    found += [
        Error(
            f"{count} pools have this name",
            hint=f"Rename all but one in {TOPOLOGY}: `runpool` could start only the first.",
            obj=f"pool {name}",
            id="switchyard.E012",
        )
        for name, count in _repeated(pool.name for pool in yard.pools)
    ]
    return found


def impossible_limits(yard: Yard) -> list[CheckMessage]:
    """E004: a queue whose soft limit is not above zero and below its hard limit."""
    return [
        Error(
            f"soft_limit_ms is {queue.soft_limit_ms}, hard_limit_ms is {queue.hard_limit_ms}; "
            "a task must be told to stop before its child is killed",
            hint=f"Set 0 < soft_limit_ms < hard_limit_ms in {TOPOLOGY}.",
            obj=f"queue {queue.name}",
            id="switchyard.E004",
        )
        for queue in yard.queues
        if not 0 < queue.soft_limit_ms < queue.hard_limit_ms
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
            hint=f"Remove {lane!r} from the pool's queues in {TOPOLOGY}; requeue with `manage.py deadletters requeue`.",
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


def _repeated(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in Counter(names).items() if count > 1]
