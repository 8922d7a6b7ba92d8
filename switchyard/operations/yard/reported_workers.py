"""The supervisors that report, with the sentences of their page and command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from switchyard.broker.interface import facilities
from switchyard.broker.stores.pool_reports import QUIETED, Instruction, PoolReport
from switchyard.conf import declared_yard

WORKERS_AWAY = "Unknown while the broker is unavailable. Workers go on with what they run and try again every second."


@dataclass(frozen=True, slots=True)
class ReportedWorkers:
    """The supervisors that report, in the order of the yard, with the sentences of their page and command.

    Args:
        missing: Pools without one.
        instructions: By member, those by which supervisors are quieted.
    """

    reports: tuple[PoolReport, ...]
    missing: tuple[str, ...]
    instructions: Mapping[str, Instruction] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The sentence that judges."""
        if not self.reports:
            return "No worker reports"
        if not self.missing:
            quieted = self.quieted
            if not quieted:
                return "Every pool has its workers"
            take = "1 pool takes" if len(quieted) == 1 else f"{len(quieted)} pools take"
            return f"{take} no new work: {', '.join(quieted)}"
        pools = "1 pool" if len(self.missing) == 1 else f"{len(self.missing)} pools"
        return f"{pools} without a worker: {', '.join(self.missing)}"

    @property
    def quieted(self) -> tuple[str, ...]:
        """Pools whose supervisors are all quieted."""
        taking = {report.pool for report in self.reports if report.state != QUIETED}
        return tuple(dict.fromkeys(report.pool for report in self.reports if report.pool not in taking))

    @property
    def lead(self) -> str:
        """Sentence of what they do, and of what starts those that are missing."""
        if not self.reports:
            return (
                "No supervisor reports. `manage.py switchyard runpools` starts all pools on this machine; each appears "
                "here within 2 s."
            )
        busy, slots = (sum(getattr(report, name) for report in self.reports) for name in ("busy", "slots"))
        text = f"{busy:,} of {slots:,} slots run a job."
        if not self.missing:
            return text
        them, more = ("it", "") if len(self.missing) == 1 else ("them", ", and so on")
        return f"{text} Start {them} with `manage.py switchyard runpool {self.missing[0]}`{more}."


def reported_workers() -> ReportedWorkers:
    """Read the supervisors that report.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    names = [pool.name for pool in declared_yard().pools]
    order = {name: place for place, name in enumerate(names)}
    reports = sorted(facilities().pools.read_all(), key=lambda it: (order.get(it.pool, len(order)), it.host, it.pid))
    reported = {report.pool for report in reports}
    instructions = facilities().pools.read_quieted(reports)
    return ReportedWorkers(tuple(reports), tuple(name for name in names if name not in reported), instructions)
