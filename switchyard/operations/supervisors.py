"""The supervisors that report, and operators' instructions to them: take no new work, take work again, stop.

Each instruction is written to the audit log.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from switchyard.audit.services import act
from switchyard.audit.who import Who
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.stores.pool_reports import QUIETED, Instruction, PoolReport, Verb
from switchyard.conf import declared_yard

LONGEST_REASON: Final = 500
POLL_S: Final = 0.2
# Instructions in words, after "1 supervisor is told to".
TOLD: Final[dict[str, str]] = {
    "quiet": "take no new work; what runs there ends",
    "resume": "take work again",
    "stop": "drain and end",
}
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


def refusal(report: PoolReport, verb: str) -> str:
    """Return why a supervisor is left out of an instruction, or ""."""
    if report.state == "draining":
        return "it is stopping already"
    if not report.children:
        return f"it takes no instructions: no child of it is up yet; on {report.host}: kill -TERM {report.pid}"
    if verb == "quiet" and report.state == QUIETED:
        return "it takes no new work already"
    return "it takes work" if verb == "resume" and report.state != QUIETED else ""


def instruct(verb: Verb, reports: Iterable[PoolReport], *, who: Who, reason: str = "") -> list[PoolReport]:
    """Instruct supervisors, one after the other; return those that were. They obey with their next report, within 2 s.

    Works without the database; the rows are in the log then.

    Args:
        reports: A supervisor that was started anew since its report does not obey.

    Raises:
        BrokerError: the broker did not answer; those that were instructed before are in the audit log.
    """
    done = []
    for report in reports:
        with act(f"worker.{verb}", who=who, target=report.member, reason=reason, essential=False) as entry:
            instruction = Instruction(
                id=secrets.token_hex(8),
                verb=verb,
                started_at=report.started_at,
                at=now_ms(),
                by=who.name,
                reason=reason[:LONGEST_REASON],
            )
            facilities().pools.instruct(report.member, instruction)
            entry.count = 1
        done.append(report)
    return done


def obeyed(verb: Verb, told: Sequence[PoolReport]) -> list[PoolReport]:
    """Return the supervisors that have obeyed, by what they report now.

    Raises:
        BrokerError: the broker did not answer.
    """
    now = {report.member: report for report in facilities().pools.read_all()}
    return [report for report in told if _has_obeyed(verb, report, now.get(report.member))]


def wait_until_obeyed(
    verb: Verb, told: Sequence[PoolReport], wait_s: float, sleep: Callable[[float], None] = time.sleep
) -> list[PoolReport]:
    """Wait until supervisors have obeyed, at most for ``wait_s``; return those that have not."""
    deadline_s = time.monotonic() + wait_s
    while True:
        done = {report.member for report in obeyed(verb, told)}
        left = [report for report in told if report.member not in done]
        if not left or time.monotonic() >= deadline_s:
            return left
        sleep(POLL_S)


def _has_obeyed(verb: Verb, told: PoolReport, now: PoolReport | None) -> bool:
    if now is None or now.started_at != told.started_at:  # it ended
        return verb == "stop"
    if verb == "stop":
        return now.state == "draining"
    return (now.state == QUIETED) == (verb == "quiet")
