"""An actor's function with a parameter of every type that arguments may have; it notes what it got."""

from __future__ import annotations

import inspect
import json
from typing import Any

import dramatiq

from tests.unit.broker.queue.arguments.kinds import KINDS, told

GOT = "bench:typed"
QUEUES = ("urgent", "slow", "webhook")
NAMES = {f"value_{number}": annotation for number, annotation in enumerate(KINDS)}


def note(token: str, **values: Any) -> None:
    """Note each value with its type."""
    client: Any = dramatiq.get_broker().client  # type: ignore[attr-defined]
    client.rpush(GOT, json.dumps([token, {name: told(value) for name, value in values.items()}]))


note.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("token", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
            for name, annotation in NAMES.items()
        ),
    ]
)


def declare(**options: Any) -> dict[str, Any]:
    """Declare an actor for each kind of pool: threads, processes, gevent."""
    return {queue: dramatiq.actor(note, queue_name=queue, actor_name=f"{queue}_typed", **options) for queue in QUEUES}
