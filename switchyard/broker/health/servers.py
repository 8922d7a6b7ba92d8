"""The servers that hold a yard's keys: facts and findings of each, what is away, and the marker of the keyspace.

Mostly that is one server, which answers or is away as a whole. An add-on that spreads keys over several places brings a
subclass of :class:`Servers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from switchyard.broker.health.keyspace_id import KeyspaceId
from switchyard.broker.health.server import ServerFacts, ServerFinding, judge, read_facts
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word


@dataclass(frozen=True, slots=True)
class AwayPart:
    """Part of a yard that does not answer or starts nothing; empty where the whole yard answers.

    Args:
        places: Their servers do not answer.
        queues: Queues that they hold.
        keys: Further keys that were asked for and cannot be used.
        blocked: Queues that start nothing, though their server answers; with their state (``blocked_word``), the fact
            behind it (``blocked_why``), and findings about them.
    """

    places: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    blocked_word: str = ""
    blocked_why: str = ""
    findings: tuple[ServerFinding, ...] = ()

    @property
    def starts_nothing(self) -> frozenset[str]:
        """Queues that are away or blocked."""
        return self.blocked.union(self.queues)


NOTHING_AWAY: Final = AwayPart()


@dataclass(frozen=True, slots=True)
class ServerLook:
    """One server, as it was found: its place ("" for the only one), its facts (``None`` when away), and findings."""

    place: str
    facts: ServerFacts | None
    findings: tuple[ServerFinding, ...]


class Servers:
    """The only server that holds a yard's keys."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> None:
        self.calls, self.keys, self.queues = calls, keys, tuple(queues)

    def keyspace(self) -> KeyspaceId:
        return KeyspaceId(self.calls, self.keys, self.queues)

    def marks(self) -> list[tuple[str, str]]:
        """Return the names of every marker of the keyspace and of its missed ids."""
        return [(self.keys.generation(), self.keys.generations_missed())]

    def marker_of(self, queue: str) -> str:
        """Return the name of the marker that tells whether a queue lost its keys."""
        return self.keys.generation()

    def place_of(self, key: str) -> str:
        """Return the place of a key; "" for the only one, and while it has none."""
        return ""

    def where_lost(self, lost: Iterable[str]) -> str:
        """Return which servers lost markers, as half a sentence; "" for the only one."""
        return ""

    def probed_keys(self) -> list[str]:
        """Return the keys, beside those of the queues, that operations need and that may be away by themselves."""
        return []

    def away(self, *, also: Iterable[str] = ()) -> AwayPart:
        """Return the part of the yard, with further keys, that does not answer, while another part does.

        Raises ``BrokerUnavailable`` when no server answers.
        """
        return NOTHING_AWAY

    def probes(self) -> list[tuple[Word, ...]]:
        """Return commands that are sent with a look at the keyspace, and whose answers :meth:`judge_probes` reads."""
        return []

    def judge_probes(self, answers: Sequence[Any]) -> list[ServerFinding]:
        """Return the findings in the answers to :meth:`probes`."""
        return []

    def read(self, *, production: bool, away: AwayPart = NOTHING_AWAY) -> list[ServerLook]:
        """Read the facts of every server, and what is wrong with it; those that are known to be away are not asked.

        Raises ``BrokerUnavailable`` when no server answers.
        """
        facts = read_facts(self.calls)
        return [ServerLook("", facts, tuple(judge(facts, production=production)))]

    def findings(self, looks: Iterable[ServerLook]) -> list[ServerFinding]:
        """Return the findings of all servers, worst first, one of each code."""
        return [item for look in looks for item in look.findings]


def servers_of(calls: RedisCalls, keys: Keys, queues: Iterable[str] = ()) -> Servers:
    kind = (calls.addon and calls.addon.load("servers")) or Servers
    servers: Servers = kind(calls, keys, queues)
    return servers
