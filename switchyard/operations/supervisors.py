"""The supervisors that report, operators' instructions to them, and the state of the broker's server.

Each instruction is written to the audit log.
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from django.conf import settings

from switchyard.audit.services import LONGEST_REASON, Who, act
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.health.server import ServerFinding, State, finding, wrong_types
from switchyard.broker.health.servers import NOTHING_AWAY, AwayPart, Servers, servers_of
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.keys import Keys, QueueKeys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.own_keys import texts_of
from switchyard.broker.stores.pool_reports import QUIETED, Instruction, PoolReport, ReportedChild, Verb
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, rough_duration
from switchyard.long_running import SCHEDULER

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

    ``missing``: pools without one; ``instructions``: by member, those by which supervisors are quieted.
    """

    reports: tuple[PoolReport, ...]
    missing: tuple[str, ...]
    instructions: Mapping[str, Instruction] = field(default_factory=dict)

    @property
    def title(self) -> str:
        if not self.reports:
            return "No worker reports"
        silent = [f"{child.pid} of {report.pool}" for report in self.reports for child in report.silent]
        if not self.missing and silent:
            return f"No answer from {'child' if len(silent) == 1 else 'children'} {', '.join(silent)}"
        if self.missing:
            return f"{counted(len(self.missing), 'pool')} without a worker: {', '.join(self.missing)}"
        if quieted := self.quieted:
            take = "takes" if len(quieted) == 1 else "take"
            return f"{counted(len(quieted), 'pool')} {take} no new work: {', '.join(quieted)}"
        return "Every pool has its workers"

    @property
    def quieted(self) -> tuple[str, ...]:
        """Pools whose supervisors are all quieted."""
        taking = {report.pool for report in self.reports if report.state != QUIETED}
        return tuple(dict.fromkeys(report.pool for report in self.reports if report.pool not in taking))

    @property
    def lead(self) -> str:
        """Sentence of what they do, and of what starts those that are missing."""
        if not self.reports:
            start = "`manage.py switchyard runpools` starts all pools on this machine"
            return f"No supervisor reports. {start}; each appears here within 2 s."
        busy, slots = (sum(getattr(report, name) for report in self.reports) for name in ("busy", "slots"))
        text = f"{busy:,} of {slots:,} slots run a job."
        if not self.missing:
            return text
        them, more = ("it", "") if len(self.missing) == 1 else ("them", ", and so on")
        return f"{text} Start {them} with `manage.py switchyard runpool {self.missing[0]}`{more}."


def reported_workers() -> ReportedWorkers:
    names = [pool.name for pool in declared_yard().pools]
    order = {name: place for place, name in enumerate(names)}
    reports = sorted(facilities().pools.read_all(), key=lambda it: (order.get(it.pool, len(order)), it.host, it.pid))
    reported = {report.pool for report in reports}
    instructions = facilities().pools.read_quieted(reports)
    return ReportedWorkers(tuple(reports), tuple(name for name in names if name not in reported), instructions)


def child_state(report: PoolReport, child: ReportedChild) -> str:
    """Return the state of a child: ``up``, ``starting``, ``quiet``, ``silent for 8 s``."""
    if silent_ms := next((each.silent_ms for each in report.silent if each.pid == child.get("pid")), 0):
        return f"silent for {rough_duration(silent_ms, up=False)}"
    return "quiet" if child.get("quiet") else "up" if child.get("ready") else "starting"


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
        with act(f"worker.{verb}", who=who, target=report.member, reason=reason, essential=False):
            id_, since, why = secrets.token_hex(8), report.started_at, reason[:LONGEST_REASON]
            instruction = Instruction(id=id_, verb=verb, started_at=since, at=now_ms(), by=who.name, reason=why)
            facilities().pools.instruct(report.member, instruction)
        done.append(report)
    return done


def wait_until_obeyed(verb: Verb, told: Sequence[PoolReport], wait_s: float) -> list[PoolReport]:
    """Wait until supervisors have obeyed by what they report, at most for ``wait_s``; return those that have not."""
    deadline_s = time.monotonic() + wait_s
    while True:
        now = {report.member: report for report in facilities().pools.read_all()}
        left = [report for report in told if not _has_obeyed(verb, report, now.get(report.member))]
        if not left or time.monotonic() >= deadline_s:
            return left
        time.sleep(POLL_S)


def _has_obeyed(verb: Verb, told: PoolReport, now: PoolReport | None) -> bool:
    if now is None or now.started_at != told.started_at:  # it ended
        return verb == "stop"
    if verb == "stop":
        return now.state == "draining"
    return (now.state == QUIETED) == (verb == "quiet")


# First word of the server's error -> why it accepts no work, and the remedy.
REFUSALS = {
    "OOM": ("its memory is full", "Raise it with `CONFIG SET maxmemory` and in the server's configuration; work then "
            "resumes by itself. Leave maxmemory-policy alone: any other one deletes waiting jobs."),
    "READONLY": ("it is a replica, which only reads",
                 "Point SWITCHYARD_BROKER_URL at the primary, or finish the failover."),
    "MISCONF": ("it cannot write to its disk", "Free its disk and read its log; work then resumes by itself."),
}  # fmt: skip
# Findings that a refusal already reports.
IMPLIED_BY_REFUSAL = frozenset({"replica", "disk", "loading", "nearly_full"})


@dataclass(frozen=True, slots=True)
class ServerState:
    """Readiness of the server for new work.

    Args:
        refusal: Reason why it refuses writes, as half a sentence; "" when it accepts them.
        remedy: Step after which the server accepts writes again.
        findings: Other defects, worst first, without those that cannot be verified.
        uptime_s: Seconds since its start, not compared; ``None`` where it does not tell.
        away: Part of the yard that does not answer or starts nothing.
        pools_known, scheduler_known: The server with the pools' reports, and with the scheduler's lease, answers.
        memory: Bytes used and allowed, of the server that is fullest; ``None`` where none has a limit.
    """

    refusal: str = ""
    remedy: str = ""
    findings: tuple[ServerFinding, ...] = ()
    uptime_s: int | None = field(default=None, compare=False)
    away: AwayPart = NOTHING_AWAY
    pools_known: bool = True
    scheduler_known: bool = True
    memory: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def errors(self) -> tuple[ServerFinding, ...]:
        """Findings that lose or hold up work."""
        return tuple(found for found in self.findings if found.severity == "error")


TAKES_WORK = ServerState()


def read_broker_state(found: Facilities) -> ServerState:
    """Check the broker's server, and where another one keeps the messages both."""
    state = read_server_state(found.records.calls, found.records.keys)
    if state.refusal:
        return state
    refusal, remedy = found.transport.refusal()
    return replace(state, refusal=refusal, remedy=remedy)


def read_server_state(calls: RedisCalls, keys: Keys) -> ServerState:
    """Check whether the server accepts writes, its own figures, its keyspace marker and the types of our keys.

    Of several servers those that answer are judged; the others are named in ``away``, and in a finding.
    """
    servers = servers_of(calls, keys, [queue.name for queue in declared_yard().queues])
    reports, lease = keys.pool_reports(), keys.lock(SCHEDULER)
    away = servers.away(also=(lease, *servers.probed_keys()))
    there = [keys.queue(queue) for queue in servers.queues if queue not in away.queues]
    refusal, then = _refusal(calls, there)
    looks = servers.read(production=not settings.DEBUG, away=away)
    untold = IMPLIED_BY_REFUSAL if refusal else ()
    found = [item for item in servers.findings(looks) if item.code not in ("unverified", *untold)]
    known = [look.facts for look in looks if look.facts is not None]
    limits = [(each.used_bytes, each.max_bytes) for each in known if each.max_bytes]
    uptimes_s = [each.uptime_s for each in known if each.uptime_s is not None]
    wrong = (*_lost_keyspace(servers, away), *away.findings, *wrong_types(calls, there), *found)
    return ServerState(
        refusal,
        then,
        wrong,
        min(uptimes_s, default=None),
        away,
        pools_known=reports not in away.keys,
        scheduler_known=lease not in away.keys,
        memory=max(limits, key=lambda limit: limit[0] / limit[1], default=None),
    )


def _refusal(calls: RedisCalls, families: Sequence[QueueKeys]) -> tuple[str, str]:
    # SETRANGE of an empty string creates no key, and a server that refuses writes refuses it too.
    answers = calls.pipeline([("SETRANGE", family.refused, 0, "") for family in families], raise_errors=False)
    # Where some servers accept writes, the findings about the others say what is wrong with these.
    if not answers or not all(isinstance(answer, BrokerError) for answer in answers):
        return "", ""
    answer = answers[0]
    if answer.code == "LOADING":
        raise answer
    return REFUSALS.get(answer.code, ("", ""))


def _lost_keyspace(servers: Servers, away: AwayPart) -> list[ServerFinding]:
    """Return the finding for a replaced keyspace, from the markers that watchers recorded as missing."""
    marks = [pair for pair in servers.marks() if pair[0] not in away.keys]
    commands = [("HGETALL" if at % 2 == 0 else "SMEMBERS", name) for pair in marks for at, name in enumerate(pair)]
    answers = servers.calls.pipeline(commands, raise_errors=False)
    lost = {}
    for (name, _), marker, missed in zip(marks, answers[::2], answers[1::2], strict=True):
        # An error is a replica without a primary, reported above.
        if missed and not isinstance(missed, BrokerError) and not isinstance(marker, BrokerError):
            lost[name] = texts_of(marker).get("id", "")
    if not lost:
        return []
    state: State = "another" if all(lost.values()) else "missing"
    return finding(state, servers.where_lost(lost))
