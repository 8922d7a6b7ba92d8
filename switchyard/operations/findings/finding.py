"""Findings about the yard, the groups that they belong to, and the buttons that lead to their remedies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from switchyard.console.links import page_url

Severity = Literal["ok", "skipped", "warning", "error"]

EXIT_CODES: dict[Severity, int] = {"ok": 0, "skipped": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, slots=True)
class Act:
    """A button: it says what it does and to how many.

    Args:
        link: URL name of the page it leads to; ``of`` the URL's argument, ``query`` its query string.
    """

    label: str
    link: str
    of: str = ""
    query: str = ""

    @property
    def href(self) -> str:
        """Address that the button leads to; "" without a room."""
        address = page_url(self.link, *[self.of] if self.of else [])
        return address and address + self.query


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        group: Name of its group: ``configuration``, ``broker``, ``database``, ``pools``, ``queues``, ``actors``,
            ``scheduler``, ``history``, ``dead letters``, ``alerts``, ``disk``, ``storage``.
        code: Short name, stable across releases.
        severity: ``error``: work is lost, refused or held up; ``warning``: it will be, or a person should check;
            ``ok``: a fact; ``skipped``: not checked because of another finding.
        seen: Fact with its figures. Contains no address and no secret.
        cause: Most likely cause.
        next: Remedy: a command to copy, or a step.
        subject: Queue, pool, schedule or channel concerned; "" for the whole group.
        then: What happens by itself and what to do, for a page; "" repeats ``next``.
        act: Button of a page.
        factor: Weight among findings of one code, the largest first.
        word: Label of this one, where its code's says less; "" for that.
    """

    group: str
    code: str
    severity: Severity
    seen: str
    cause: str = ""
    next: str = ""
    subject: str = ""
    then: str = ""
    act: Act | None = None
    factor: float = 0.0
    word: str = ""

    @property
    def name(self) -> str:
        """Group and code, as the table of precedence has them."""
        return f"{self.group}.{self.code}"


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """A named group of checks, which builds its findings. ``Finding`` describes the arguments."""

    name: str

    def finding(
        self,
        severity: Severity,
        code: str,
        seen: str,
        cause: str,
        next_step: str,
        subject: str = "",
        *,
        then: str = "",
        act: Act | None = None,
        factor: float = 0.0,
        word: str = "",
    ) -> Finding:
        """Return a finding whose severity was computed."""
        return Finding(self.name, code, severity, seen, cause, next_step, subject, then, act, factor, word)

    def ok(self, seen: str, *, cause: str = "", subject: str = "") -> Finding:
        """Return a fact; its code is ``ok``."""
        return self.finding("ok", "ok", seen, cause, "", subject)

    def skipped(self, code: str, seen: str) -> Finding:
        """Return the finding for a check that did not run."""
        return self.finding("skipped", code, seen, "", "")

    def warning(
        self, code: str, seen: str, cause: str, next_step: str, subject: str = "", act: Act | None = None
    ) -> Finding:
        """Return a warning."""
        return self.finding("warning", code, seen, cause, next_step, subject, act=act)

    def error(
        self, code: str, seen: str, cause: str, next_step: str, subject: str = "", act: Act | None = None
    ) -> Finding:
        """Return an error."""
        return self.finding("error", code, seen, cause, next_step, subject, act=act)


LOOK_AT_WORKERS = Act("Show every worker", "switchyard-operations-workers")
CHECK_BROKER = Act("Check the broker again", "switchyard-operations")
CHECK_DATABASE = Act("Check the database again", "switchyard-operations")


def worst(findings: list[Finding]) -> Severity:
    """Return the severity of the whole: ``ok``, ``warning`` or ``error``."""
    return max((found.severity for found in findings), key=EXIT_CODES.__getitem__, default="ok")
