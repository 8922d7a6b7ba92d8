"""Execution of all checks, one group after the other, within ten seconds even when servers do not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from apps.platform.operations.findings import (
    alerts,
    configuration,
    database,
    dead_letters,
    disk,
    history,
    pools,
    queues,
    scheduler,
    server,
    snapshot,
)
from apps.platform.operations.findings.failures import run_checks
from apps.platform.operations.findings.finding import Finding, FindingGroup

DEADLINE_S = 2.0
WHOLE_S = 9.0
LEAST_S = 0.2
# Codes of findings after which the other checks of a server are skipped -> the reason.
AWAY = {
    "away": "does not answer",
    "hangs": "does not answer",
    "refused": "refuses us",
    "broken": "was not understood",
    "unmigrated": "lacks its tables",
}


@dataclass
class Examination:
    """Findings so far. Groups run in sequence, so that the work of one does not slow the measurements of another."""

    findings: list[Finding] = field(default_factory=list)
    _ends: float = field(default_factory=lambda: time.monotonic() + WHOLE_S)

    def look(
        self, group: FindingGroup, check: Callable[[], Iterable[Finding]], *, needs: FindingGroup | None = None
    ) -> None:
        """Run a group of checks, unless the server it needs did not answer.

        Args:
            needs: FindingGroup that checks the same server.
        """
        if needs and (why := self._away(needs)):
            self.findings.append(group.skipped("not_checked", f"not checked: the {needs.name} {why}"))
            return
        left_s = max(self._ends - time.monotonic(), LEAST_S)
        self.findings += run_checks(group, check, min(DEADLINE_S, left_s))

    def _away(self, group: FindingGroup) -> str:
        """Return why the server of a group cannot be checked, "" when it can."""
        codes = {found.code for found in self.findings if found.group == group.name}
        return next((why for code, why in AWAY.items() if code in codes), "")


def examine() -> list[Finding]:
    """Run every group and return its findings."""
    examination = Examination()
    examination.look(configuration.GROUP, configuration.look)
    examination.look(disk.GROUP, disk.look)
    examination.look(server.GROUP, server.look)
    examination.look(pools.GROUP, _pools_and_queues, needs=server.GROUP)
    examination.look(scheduler.GROUP, scheduler.look_at_leader, needs=server.GROUP)
    examination.look(history.GROUP, history.look, needs=server.GROUP)
    examination.look(database.GROUP, database.look)
    examination.look(scheduler.GROUP, scheduler.look_at_ticks, needs=database.GROUP)
    examination.look(dead_letters.GROUP, dead_letters.look, needs=database.GROUP)
    examination.look(alerts.GROUP, alerts.look, needs=database.GROUP)
    return examination.findings


def _pools_and_queues() -> Iterator[Finding]:
    state = snapshot.read()
    yield from pools.look(state)
    yield from queues.look(state)
