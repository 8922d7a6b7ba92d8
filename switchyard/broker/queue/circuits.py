"""Circuits of dependencies in a queue family: counted, opened, probed and closed by one Lua script.

An open circuit is a pause of its actors. Every function may raise what
:meth:`switchyard.broker.redis.calls.RedisCalls.call` raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
from dramatiq.actor import Actor

from switchyard.broker.clock import now_ms
from switchyard.broker.keys import ALL_LANES
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import ACTOR_PAUSE, QueueOperations
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.own_keys import read
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import CIRCUIT, field_of
from switchyard.broker.topology import Dependency


class Circuit(msgspec.Struct, frozen=True):
    """The breaker of a dependency, or of one value of an argument, in a queue. ``calls`` as of :class:`ActorPause`.

    Args:
        lease_ms: Time after which a probe that has not ended is replaced.
    """

    dependency: Dependency
    lease_ms: int
    calls: Mapping[str, int]
    argument: str = ""
    value: Any = None

    @property
    def field(self) -> str:
        """Name by which a queue family keeps it."""
        return field_of(CIRCUIT + self.dependency.name, self.argument, self.value)

    @property
    def digest(self) -> str:
        """Name of its key: a value may be long."""
        return sha256(self.field.encode()).hexdigest()[:16]


# So long two releases may run side by side, of which one still declares a dependency.
DEPLOY_MS: Final = 600_000


def resume_over(family: QueueOperations, actors: Iterable[Actor[..., Any]]) -> None:
    """Make due what pauses that are over had put off, and let open circuits have their probes.

    A circuit that stops an actor which does not declare it any more is closed: nothing would count how its probes end.
    One that has opened in the last 10 minutes stays: workers of another release may declare it.
    """
    specs = {each.actor_name: each.options.get("depends_on") for each in actors}
    for text in family.calls.command("HVALS", family.keys.actor_pauses):
        one = read(ACTOR_PAUSE, text, family.keys.actor_pauses)
        if one is not None and one.is_open and one.since < now_ms() - DEPLOY_MS:
            spec = one.dependency + (f" per {one.argument}" if one.argument else "")
            if any(specs.get(actor) != spec for actor in one.calls or ()):
                administration.resume_actor(family, one.field)
    administration.resume_actor(family)


# Some are left for people's pauses.
MOST_OPEN_CIRCUITS: Final = 80


def note_circuit(
    family: QueueOperations, circuit: Circuit, message_id: str, outcome: str, *, until_ms: int = 0, reason: str = "",
    by: str = "",
) -> str:  # fmt: skip
    """Count a call of a dependency by a message: ``ok``, ``failed``, or ``other`` for an attempt that does not count.

    Args:
        until_ms: Open the circuit until then, ms since the epoch, whatever was counted; 0 for no.
        by: The person who opens it.

    Returns:
        ``closed``; ``opened`` by this call; ``probed``: the message was the probe, and failed; ``open``: it was not the
        probe, and failed. With 80 open circuits in the queue no other one opens.
    """
    k, declared = family.keys, circuit.dependency
    stored: dict[str, Any] = {"actor": CIRCUIT + declared.name, "calls": circuit.calls, "lease_ms": circuit.lease_ms}
    if circuit.argument:
        stored |= {"argument": circuit.argument, "value": circuit.value}
    rest = msgspec.json.encode(stored | {"by": by, "reason": reason})
    keys = [k.actor_pauses, k.circuit(circuit.digest), k.token, *map(k.wakeup, ALL_LANES)]
    numbers: list[Word] = [str(declared.failures), declared.least, declared.window_ms, declared.open_ms]
    numbers += [declared.longest_open_ms, declared.probes, until_ms, MOST_OPEN_CIRCUITS]
    answer = family.calls.call(script("circuit_note"), keys, [circuit.field, message_id, outcome, *numbers, rest])
    return str(answer, "ascii")
