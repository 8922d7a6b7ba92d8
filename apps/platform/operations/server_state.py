"""Whether the broker's server takes work, and whether it may drop some: it answers reads when it does neither."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from apps.platform.conf import declared_yard
from broker.errors import BrokerError
from broker.health.key_types import type_commands, wrong_types
from broker.health.keyspace_id import finding, marker_commands, marker_of
from broker.health.server import Finding, judge, read_facts
from broker.keys.keys import Keys
from broker.redis.calls import RedisCalls

# First word of the server's refusal -> why it takes no work, and what to do.
REFUSALS = {
    "OOM": (
        "its memory is full",
        "Raise it with `CONFIG SET maxmemory` and in the server's configuration; work then goes on by itself. Leave "
        "maxmemory-policy alone: any other one deletes waiting jobs.",
    ),
    "READONLY": (
        "it is a replica, which only reads",
        "Point SWITCHYARD_BROKER_URL at the primary, or finish the failover.",
    ),
    "MISCONF": (
        "it cannot write to its disk",
        "Free its disk and look into its log; work then goes on by itself.",
    ),
}
# Findings that a refusal has told already.
TOLD_BY_REFUSAL = frozenset({"replica", "disk", "loading", "nearly_full"})


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server does with new work.

    Args:
        refusal: Why it takes none, as half a sentence; "" when it takes it.
        remedy: How to make it take work again.
        findings: What else should be changed, worst first; what cannot be verified is not among it.
    """

    refusal: str = ""
    remedy: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings by which work is lost or held up."""
        return tuple(found for found in self.findings if found.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that will become errors, or that cost no more than a part of the work."""
        return tuple(found for found in self.findings if found.severity == "warning")


TAKES_WORK = ServerState()


def read_server_state(calls: RedisCalls, keys: Keys) -> ServerState:
    """Ask for leave to write, writing nothing, what the server says of itself, and whether its keys are ours.

    Raises:
        BrokerUnavailable: it does not answer.
    """
    refusal, then = _refusal(calls, keys)
    found = [item for item in judge(read_facts(calls), production=not settings.DEBUG) if item.code != "unverified"]
    if refusal:
        found = [item for item in found if item.code not in TOLD_BY_REFUSAL]
    return ServerState(refusal, then, (*_lost_keyspace(calls, keys), *_wrong_types(calls, keys), *found))


def _refusal(calls: RedisCalls, keys: Keys) -> tuple[str, str]:
    # Nothing, written into a key that does not exist, makes none; a server that refuses writes refuses this too.
    [answer] = calls.pipeline([("SETRANGE", keys.lock("takes-work"), 0, "")], raise_errors=False)
    if not isinstance(answer, BrokerError):
        return "", ""
    if answer.code == "LOADING":
        raise answer
    return REFUSALS.get(answer.code, ("", ""))


def _wrong_types(calls: RedisCalls, keys: Keys) -> list[Finding]:
    families = [keys.queue(queue.name) for queue in declared_yard().queues]
    return wrong_types(families, calls.pipeline(type_commands(families), raise_errors=False))


def _lost_keyspace(calls: RedisCalls, keys: Keys) -> list[Finding]:
    """Return what those who watch left word of: they had seen another keyspace here."""
    answers = calls.pipeline(marker_commands(keys), raise_errors=False)
    if any(isinstance(answer, BrokerError) for answer in answers):  # a replica without a primary, reported above
        return []
    marker = marker_of(*answers)
    if not marker.missed:
        return []
    return finding("another" if marker.id else "missing")
