"""Addresses of the steps that lead from an alert to its cause."""

from __future__ import annotations

from typing import Final

from switchyard.conf import switchyard_settings
from switchyard.console.links import steps_url

# Where a project has left the room's page of steps out of its URLs.
PAGE: Final = "docs/how-to/triage.md"
# Kind of an alert -> heading of its steps.
BY_KIND: Final = {"dead_letter": "Dead letters", "broker": "Unsafe"}


def runbook(heading: str) -> str:
    """Return the address of the steps for a verdict's label, or another heading of the page, with the web's host."""
    if address := steps_url(heading):
        return f"{switchyard_settings().public_url}{address}"
    return f"{PAGE}#{heading.lower().replace(' ', '-')}" if heading else PAGE


def runbook_of_alert(kind: str) -> str:
    """Return the address of the steps for an alert of a kind; of the whole page for an unknown one."""
    return runbook(BY_KIND.get(kind, ""))
