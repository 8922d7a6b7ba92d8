"""State of the broker's server: whether it accepts writes, and whether it may lose data. Reads alone show neither."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.conf import settings

from apps.platform.conf import declared_yard
from broker.errors import BrokerError
from broker.health.key_types import type_commands, wrong_types
from broker.health.keyspace_id import finding, marker_commands, marker_of
from broker.health.server import ServerFinding, judge, read_facts
from broker.keys.keys import Keys
from broker.redis.calls import RedisCalls

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
    "MISCONF": (
        "it cannot write to its disk",
        "Free its disk and read its log; work then resumes by itself.",
    ),
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
    """

    refusal: str = ""
    remedy: str = ""
    findings: tuple[ServerFinding, ...] = ()
    uptime_s: int | None = field(default=None, compare=False)

    @property
    def errors(self) -> tuple[ServerFinding, ...]:
        """Findings that lose or hold up work."""
        return tuple(found for found in self.findings if found.severity == "error")

    @property
    def warnings(self) -> tuple[ServerFinding, ...]:
        """Findings that may become errors, or that affect a part of the work."""
        return tuple(found for found in self.findings if found.severity == "warning")


TAKES_WORK = ServerState()


def read_server_state(calls: RedisCalls, keys: Keys) -> ServerState:
    """Check whether the server accepts writes, its own figures, its keyspace marker and the types of our keys.

    Raises:
        BrokerUnavailable: the server does not answer.
    """
    refusal, then = _refusal(calls, keys)
    facts = read_facts(calls)
    found = [item for item in judge(facts, production=not settings.DEBUG) if item.code != "unverified"]
    if refusal:
        found = [item for item in found if item.code not in IMPLIED_BY_REFUSAL]
    return ServerState(
        refusal, then, (*_lost_keyspace(calls, keys), *_wrong_types(calls, keys), *found), facts.uptime_s
    )


def _refusal(calls: RedisCalls, keys: Keys) -> tuple[str, str]:
    # SETRANGE of an empty string creates no key, and a server that refuses writes refuses it too.
    [answer] = calls.pipeline([("SETRANGE", keys.lock("takes-work"), 0, "")], raise_errors=False)
    if not isinstance(answer, BrokerError):
        return "", ""
    if answer.code == "LOADING":
        raise answer
    return REFUSALS.get(answer.code, ("", ""))


def _wrong_types(calls: RedisCalls, keys: Keys) -> list[ServerFinding]:
    families = [keys.queue(queue.name) for queue in declared_yard().queues]
    return wrong_types(families, calls.pipeline(type_commands(families), raise_errors=False))


def _lost_keyspace(calls: RedisCalls, keys: Keys) -> list[ServerFinding]:
    """Return the finding for a replaced keyspace, from the markers that watchers recorded as missing."""
    answers = calls.pipeline(marker_commands(keys), raise_errors=False)
    if any(isinstance(answer, BrokerError) for answer in answers):  # a replica without a primary, reported above
        return []
    marker = marker_of(*answers)
    if not marker.missed:
        return []
    return finding("another" if marker.id else "missing")
