"""The line of code to change when an actor runs too long for its queue."""

from __future__ import annotations

from dataclasses import dataclass

import dramatiq

from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard
from switchyard.console.formatting import promise
from switchyard.middleware.places import place_of


@dataclass(frozen=True, slots=True)
class QueueLine:
    """A change of an actor's ``queue_name``.

    Args:
        place: File and line of the actor; ``took_ms`` is its longest usual run.
        before, after: Names of queues; ``promise`` is that of the queue after.
    """

    actor: str
    place: str
    took_ms: int
    before: str
    after: str
    promise: str


def line_of(queue: Queue, actor: str, longest_ms: int) -> QueueLine | None:
    """Return the change that fits an actor's longest run; ``None`` for an actor of another queue, and where none fits.

    A queue fits whose promise to start is longer than the run; of several, the one that promises most.
    """
    found = dramatiq.get_broker().actors.get(actor)
    fitting = [
        other
        for other in declared_yard().queues
        if other.name != queue.name and other.objective_ms is not None and other.objective_ms > longest_ms
    ]
    if found is None or found.queue_name != queue.name or not fitting:
        return None
    best = min(fitting, key=lambda other: other.objective_ms or 0)
    promised = promise(best.objective_ms, best.done_objective_ms)
    return QueueLine(actor, place_of(found.fn), longest_ms, queue.name, best.name, promised)
