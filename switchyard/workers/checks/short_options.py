"""Options of actors in milliseconds that were most likely meant in seconds. For time limits see ``actors.py``."""

from __future__ import annotations

from django.core.checks import CheckMessage, Warning
from dramatiq.broker import Broker

from switchyard.broker.validation import is_duration
from switchyard.workers.checks.actors import subject_of

# Below these milliseconds a value helps nobody: a result leaves before it is fetched, retries end within an outage. A
# first retry after a fraction of a second may be intended.
LEAST_MS = {
    "max_age": (1_000, "after which a job that has not started expires"),
    "result_ttl": (60_000, "after which its result may be gone"),
    "min_backoff": (100, "its first delay before a retry"),
    "max_backoff": (1_000, "its longest delay before a retry"),
}


def options_in_seconds(broker: Broker) -> list[CheckMessage]:
    """W020: a ``max_age``, ``result_ttl``, ``min_backoff`` or ``max_backoff`` that was most likely meant in seconds."""
    return [
        Warning(
            f"its {name} is {value:g} ms, {meaning}",
            hint=f"It is milliseconds: for {value:g} s write {name}={int(value * 1_000):_}.",
            obj=subject_of(actor),
            id="switchyard.W020",
        )
        for actor in broker.actors.values()
        for name, (least_ms, meaning) in LEAST_MS.items()
        if (value := actor.options.get(name)) is not None and is_duration(value) and value < least_ms
    ]
