"""Middleware of Dramatiq whose work ours does. One that a project lists is left out, so that nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dramatiq.middleware import Middleware

# By name: Dramatiq's metrics are not imported for it.
REPLACED: Final = frozenset(
    {
        "dramatiq.middleware.age_limit.AgeLimit",
        "dramatiq.middleware.asyncio.AsyncIO",
        "dramatiq.middleware.callbacks.Callbacks",
        "dramatiq.middleware.current_message.CurrentMessage",
        "dramatiq.middleware.pipelines.Pipelines",
        "dramatiq.middleware.prometheus.Prometheus",
        "dramatiq.middleware.retries.Retries",
        "dramatiq.middleware.shutdown.ShutdownNotifications",
        "dramatiq.middleware.time_limit.TimeLimit",
    }
)


def is_replaced(kind: type) -> bool:
    """Return whether ours does the work of a class of middleware; a project's own subclass is not meant."""
    return f"{kind.__module__}.{kind.__qualname__}" in REPLACED


def without_replaced(listed: Iterable[Middleware]) -> list[Middleware]:
    """Return a project's middleware without Dramatiq's that is replaced."""
    return [entry for entry in listed if not is_replaced(type(entry))]
