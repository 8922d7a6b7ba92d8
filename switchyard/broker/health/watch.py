"""Periodic check of the broker's server: persistence, eviction policy, and whether the keyspace was replaced.

The watch has no thread: a process with a loop calls :meth:`Watch.look` when :meth:`Watch.seconds_to_next` is over. It
takes one or two seconds when the server hangs. A look also writes to the server for processes without a loop: every
queue family refuses new messages while the server would delete them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.health.keyspace_id import finding
from switchyard.broker.health.server import ServerFinding, away, wrong_types
from switchyard.broker.health.servers import ServerLook, servers_of
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word

EVERY_S: Final = 5.0
# Of the types of all keys, some hundred answers: sooner while one is wrong.
TYPES_EVERY_S: Final = 60.0
# Time to live of a refusal: three looks may be missed before it expires.
REFUSED_MS: Final = 20_000
ITS_OWN: Final = (
    "Something else writes below its prefix, or this user may not read it: give Switchyard a server of its own."
)

logger = logging.getLogger("switchyard.broker")


class Health(msgspec.Struct, frozen=True):
    """Result of a look.

    Args:
        findings: Worst first.
        news: Findings that the look before did not have.
        pause: Why pools must not fetch; "" when they may.
    """

    findings: tuple[ServerFinding, ...] = ()
    news: tuple[ServerFinding, ...] = ()
    pause: str = ""

    @property
    def red(self) -> bool:
        """Whether work is lost, refused or held up."""
        return any(found.severity == "error" for found in self.findings)


class Watch:
    """Looks at one server for one process, every 5 s, over an access that nothing else uses."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Sequence[str], *, production: bool) -> None:
        self.health = Health()
        self._calls, self._servers = calls, servers_of(calls, keys, queues)
        self.generation = self._servers.keyspace()
        self._families = [keys.queue(queue) for queue in queues]
        self._production = production
        self._look_at_s = self._types_at_s = 0.0
        self._lost: list[ServerFinding] = []
        self._foreign: list[ServerFinding] = []
        self._refusing = False

    def seconds_to_next(self) -> float:
        return max(self._look_at_s - time.monotonic(), 0.0)

    @property
    def told_away(self) -> bool:
        """Whether the server did not answer the last look."""
        return any(found.code == "away" for found in self.health.findings)

    def look(self) -> Health:
        """Look now; log what is new and what is over. Raises nothing for a server that is away."""
        before = {found.code: found for found in self.health.findings}
        try:
            found = self._ask()
        except BrokerUnavailable as error:
            # The last known state of the keyspace holds until the next successful look.
            found = [away(error), *self._lost]
        pause = next((item.seen for item in found if item.code == "keyspace"), "")
        news = tuple(item for item in found if item.code not in before)
        for item in news:
            logger.log(
                logging.ERROR if item.severity == "error" else logging.WARNING, "broker: %s; %s", item.seen, item.remedy
            )
        codes = {item.code for item in found}
        for code in () if "away" in codes else before.keys() - codes:  # what is not seen may still be so
            logger.info("broker: resolved: %s", before[code].seen)
        self.health = Health(tuple(sorted(found, key=lambda item: item.severity)), news, pause)
        self._look_at_s = time.monotonic() + EVERY_S
        return self.health

    def close(self) -> None:
        """Close the connection. The next look opens another."""
        self._calls.close()

    def _ask(self) -> list[ServerFinding]:
        looks = self._servers.read(production=self._production)
        markers, probes = self.generation.commands(), self._servers.probes()
        # In one pipeline: each waits a second for a node that hangs, and the supervisor waits for the look.
        answers = self._calls.pipeline([*markers, *probes], raise_errors=False)
        marked, probed = answers[: len(markers)], answers[len(markers) :]
        if time.monotonic() >= self._types_at_s:
            self._look_at_keys()
        found = self._servers.findings(looks) + self._servers.judge_probes(probed) + self._foreign
        self._lost = finding(self.generation.look(marked), self.generation.where_lost())
        if (failed := self.generation.failure(marked)) is not None:
            # A replica that lost its primary still answers what the servers were asked before.
            seen = f"the broker's own keys cannot be read ({getattr(failed, 'cause', str(failed))[:80]})"
            unreadable = ServerFinding("unreadable", "error", seen, ITS_OWN)
            found.append(away(failed) if isinstance(failed, BrokerUnavailable) else unreadable)
        found += self._lost
        self._leave_word(looks)
        return found

    def _look_at_keys(self) -> None:
        # A refusal that another client wrote without an end would hold for ever.
        expiries: list[tuple[Word, ...]] = [("PEXPIRE", each.refused, REFUSED_MS, "NX") for each in self._families]
        self._foreign = wrong_types(self._calls, self._families, also=expiries)
        self._types_at_s = 0.0 if self._foreign else time.monotonic() + TYPES_EVERY_S

    def _leave_word(self, looks: Sequence[ServerLook]) -> None:
        evicting = {look.place: item.seen for look in looks for item in look.findings if item.code == "evicting"}
        if not evicting and not self._refusing and not self._lost:
            return
        commands: list[tuple[Word, ...]] = []
        for keys in self._families:
            seen = evicting.get(self._calls.place_of(keys.refused)) if evicting else None
            if seen is not None:
                commands.append(("SET", keys.refused, seen, "PX", REFUSED_MS))
            elif self._refusing:
                commands.append(("DEL", keys.refused))
        if self._lost:
            commands += self.generation.miss_commands()
        answers = self._calls.pipeline(commands, raise_errors=False)
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        self._refusing = bool(evicting) or (self._refusing and bool(refused))
