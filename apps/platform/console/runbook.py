"""Addresses of the steps that lead from an alert to its cause."""

from __future__ import annotations

from typing import Final

PAGE: Final = "docs/how-to/triage.md"
# Kind of an alert -> heading of its steps.
BY_KIND: Final = {"dead_letter": "Dead letters", "broker": "Unsafe"}


def runbook(heading: str) -> str:
    """Return the address of the steps for a verdict's label, or another heading of the page."""
    return f"{PAGE}#{heading.lower().replace(' ', '-')}"


def runbook_of_alert(kind: str) -> str:
    """Return the address of the steps for an alert of a kind; of the whole page for an unknown one."""
    return runbook(BY_KIND[kind]) if kind in BY_KIND else PAGE
