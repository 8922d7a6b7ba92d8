"""One alert rule: what it asks, how long it must hold, and what it tells the person it wakes."""

from __future__ import annotations

from typing import Any, Literal

Severity = Literal["page", "ticket"]
Where = Literal["queue", "workers", "tasks"]


def alert(
    name: str,
    expression: str,
    *,
    hold_s: int,
    severity: Severity,
    where: Where,
    summary: str,
    cause: str,
    next_step: str,
    **labels: str,
) -> dict[str, Any]:
    """Return a rule in Prometheus's shape.

    Args:
        hold_s: The expression must hold for this long; 0 alerts at once.
        severity: ``page`` wakes someone, ``ticket`` waits for the morning.
        where: Which part of the yard to look at first.
        cause: What usually makes it fire; ``next_step``: what to do about it.
        labels: Further labels, for example ``queue``.
    """
    rule: dict[str, Any] = {"alert": name, "expr": expression}
    if hold_s:
        rule["for"] = f"{hold_s}s"
    rule["labels"] = {"severity": severity, "where": where, **labels}
    rule["annotations"] = {"summary": summary, "cause": cause, "next_step": next_step}
    return rule
