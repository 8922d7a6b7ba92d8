"""Operators' instructions to supervisors, each written to the audit log: take no new work, take work again, stop."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from switchyard.audit.services import act
from switchyard.audit.who import Who
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.stores.pool_reports import QUIETED, Instruction, PoolReport, Verb

LONGEST_REASON: Final = 500
POLL_S: Final = 0.2
# Instructions in words, after "1 supervisor is told to".
TOLD: Final[dict[str, str]] = {
    "quiet": "take no new work; what runs there ends",
    "resume": "take work again",
    "stop": "drain and end",
}


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
