"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "skipped", "warning", "error"]

EXIT_CODES: dict[Severity, int] = {"ok": 0, "skipped": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        group: What it belongs to: ``configuration``, ``broker``, ``database``, ``pools``, ``queues``, ``scheduler``,
            ``dead letters``, ``alerts``, ``disk``.
        code: Short name, the same in every release.
        severity: ``error`` when work is lost, refused or held up; ``warning`` when it will be, or when somebody should
            look; ``ok`` for a fact; ``skipped`` for what could not be looked at because of another finding.
        seen: What was seen, with its figures. Holds no address and no secret.
        cause: What it most likely comes from.
        next: What to do about it: a command to copy, or a step.
        subject: The queue, pool, schedule or channel it is about; "" for the whole group.
    """

    group: str
    code: str
    severity: Severity
    seen: str
    cause: str = ""
    next: str = ""
    subject: str = ""


def worst(findings: list[Finding]) -> Severity:
    """Return the severity of the whole: ``ok``, ``warning`` or ``error``."""
    return max((found.severity for found in findings), key=EXIT_CODES.__getitem__, default="ok")
