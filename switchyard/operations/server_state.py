"""State of the broker's server: whether it accepts writes, and whether it may lose data. Reads alone show neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from django.conf import settings

from switchyard.broker.errors import BrokerError
from switchyard.broker.health.keyspace_id import State, finding, marker_of
from switchyard.broker.health.server import ServerFinding, type_commands, wrong_types
from switchyard.broker.health.servers import NOTHING_AWAY, AwayPart, Servers, servers_of
from switchyard.broker.interface import Facilities
from switchyard.broker.keys.keys import Keys
from switchyard.broker.keys.queue_keys import QueueKeys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.conf import declared_yard
from switchyard.leadership import SCHEDULER

# First word of the server's error -> why it accepts no work, and the remedy.
REFUSALS = {
    "OOM": (
        "its memory is full",
        "Raise it with `CONFIG SET maxmemory` and in the server's configuration; work then resumes by itself. Leave "
        "maxmemory-policy alone: any other one deletes waiting jobs.",
    ),
    "READONLY": (
        "it is a replica, which only reads",
        "Point SWITCHYARD_BROKER_URL at the primary, or finish the failover.",
    ),
    "MISCONF": ("it cannot write to its disk", "Free its disk and read its log; work then resumes by itself."),
}
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
    """

    refusal: str = ""
    remedy: str = ""
    findings: tuple[ServerFinding, ...] = ()
    uptime_s: int | None = field(default=None, compare=False)
    away: AwayPart = NOTHING_AWAY
    pools_known: bool = True
    scheduler_known: bool = True

    @property
    def errors(self) -> tuple[ServerFinding, ...]:
        """Findings that lose or hold up work."""
        return tuple(found for found in self.findings if found.severity == "error")

    @property
    def warnings(self) -> tuple[ServerFinding, ...]:
        """Findings that may become errors, or that affect a part of the work."""
        return tuple(found for found in self.findings if found.severity == "warning")


TAKES_WORK = ServerState()


def read_broker_state(found: Facilities) -> ServerState:
    """Check the broker's server, and where another one keeps the messages both.

    Raises:
        BrokerUnavailable: no server answers.
    """
    state = read_server_state(found.records.calls, found.records.keys)
    if state.refusal:
        return state
    refusal, remedy = found.transport.refusal()
    return replace(state, refusal=refusal, remedy=remedy)


def read_server_state(calls: RedisCalls, keys: Keys) -> ServerState:
    """Check whether the server accepts writes, its own figures, its keyspace marker and the types of our keys.

    Of several servers those that answer are judged; the others are named in ``away``, and in a finding.

    Raises:
        BrokerUnavailable: no server answers.
    """
    servers = servers_of(calls, keys, [queue.name for queue in declared_yard().queues])
    reports, lease = keys.pool_reports(), keys.lock(SCHEDULER)
    away = servers.away(also=(lease, *servers.probed_keys()))
    there = [keys.queue(queue) for queue in servers.queues if queue not in away.queues]
    refusal, then = _refusal(calls, there)
    looks = servers.read(production=not settings.DEBUG, away=away)
    found = [item for item in servers.findings(looks) if item.code != "unverified"]
    if refusal:
        found = [item for item in found if item.code not in IMPLIED_BY_REFUSAL]
    uptimes_s = [look.facts.uptime_s for look in looks if look.facts is not None and look.facts.uptime_s is not None]
    wrong_type = wrong_types(there, calls.pipeline(type_commands(there), raise_errors=False))
    wrong = (*_lost_keyspace(servers, away), *away.findings, *wrong_type, *found)
    return ServerState(
        refusal,
        then,
        wrong,
        min(uptimes_s, default=None),
        away,
        pools_known=reports not in away.keys,
        scheduler_known=lease not in away.keys,
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
    for (name, _), hash_, missed in zip(marks, answers[::2], answers[1::2], strict=True):
        if isinstance(hash_, BrokerError) or isinstance(missed, BrokerError):
            continue  # a replica without a primary, reported above
        marker = marker_of(hash_, missed)
        if marker.missed:
            lost[name] = marker
    if not lost:
        return []
    state: State = "another" if all(marker.id for marker in lost.values()) else "missing"
    return finding(state, servers.where_lost(lost))
