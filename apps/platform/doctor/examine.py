"""All checks, one group after the other, in ten seconds at the most whatever is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from apps.platform.doctor import (
    alerts,
    broker_server,
    configuration,
    database,
    dead_letters,
    disk,
    pools,
    queues,
    scheduler,
    snapshot,
)
from apps.platform.doctor.finding import Finding
from apps.platform.doctor.timeouts import ask

DEADLINE_S = 2.0
WHOLE_S = 9.0
LEAST_S = 0.2
# Findings after which nothing more is asked of a server.
AWAY = {
    "away": "does not answer",
    "hangs": "does not answer",
    "refused": "refuses us",
    "broken": "was not understood",
    "unmigrated": "has not its tables",
}


@dataclass
class Examination:
    """What was found so far. Groups come one after the other, so that none is measured slow for another's work."""

    findings: list[Finding] = field(default_factory=list)
    _ends: float = field(default_factory=lambda: time.monotonic() + WHOLE_S)

    def look(self, group: str, check: Callable[[], Iterable[Finding]], *, needs: str = "") -> None:
        """Run a group of checks, unless what it needs did not answer.

        Args:
            needs: Name of the group whose server it asks as well.
        """
        if needs and (why := self._away(needs)):
            self.findings.append(Finding(group, "not_checked", "skipped", f"not checked: the {needs} {why}"))
            return
        left_s = max(self._ends - time.monotonic(), LEAST_S)
        self.findings += ask(group, check, min(DEADLINE_S, left_s))

    def _away(self, group: str) -> str:
        """Return why a server cannot be asked, "" when it can."""
        codes = {found.code for found in self.findings if found.group == group}
        return next((why for code, why in AWAY.items() if code in codes), "")


def examine() -> list[Finding]:
    """Look at everything."""
    examination = Examination()
    examination.look(configuration.GROUP, configuration.look)
    examination.look(disk.GROUP, disk.look)
    examination.look(broker_server.GROUP, broker_server.look)
    examination.look(pools.GROUP, _work, needs=broker_server.GROUP)
    examination.look(scheduler.GROUP, scheduler.look_at_leader, needs=broker_server.GROUP)
    examination.look(database.GROUP, database.look)
    examination.look(scheduler.GROUP, scheduler.look_at_ticks, needs=database.GROUP)
    examination.look(dead_letters.GROUP, dead_letters.look, needs=database.GROUP)
    examination.look(alerts.GROUP, alerts.look, needs=database.GROUP)
    return examination.findings


def _work() -> Iterator[Finding]:
    seen = snapshot.read()
    yield from pools.look(seen)
    yield from queues.look(seen)
