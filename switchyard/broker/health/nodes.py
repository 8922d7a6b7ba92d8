"""Facts and findings of every server that holds keys: the only one, or the masters of a cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from switchyard.addons.cluster.half_moved import HalfMovedSlot, half_moved_slots, probe, stands_still
from switchyard.broker.errors import BrokerUnavailable, HashSlotHalfMoved
from switchyard.broker.health.server import ServerFacts, ServerFinding, judge, read_facts
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls

# For a node that hangs. One that refuses connections is known as soon as the access gives up.
LOOK_S: Final = 1.0
# Findings of a server outside of a cluster. A master that became a replica is asked until the client knows the new one.
ALONE_ONLY: Final = frozenset({"cluster", "replica"})


@dataclass(frozen=True, slots=True)
class AwayPart:
    """Part of a cluster that does not answer or starts nothing; empty on a single server, and on a whole cluster.

    Args:
        nodes: Addresses of its masters.
        queues: Queues that they hold.
        keys: Further keys that were asked for and lie there, or in a slot that is half moved.
        half_moved: Hash slots whose nodes answer.
    """

    nodes: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    half_moved: tuple[HalfMovedSlot, ...] = ()

    @property
    def starts_nothing(self) -> frozenset[str]:
        """Queues that are away or half moved."""
        return frozenset(self.queues).union(*(slot.queues for slot in self.half_moved))


NOTHING_AWAY: Final = AwayPart()


@dataclass(frozen=True, slots=True)
class NodeState:
    """One server.

    Args:
        address: Of a master of a cluster; "" for the only server.
        facts: ``None`` when it did not answer.
        findings: About this server, worst first.
    """

    address: str
    facts: ServerFacts | None
    findings: tuple[ServerFinding, ...]


def away_part(calls: RedisCalls, keys: Keys, queues: Iterable[str], *, also: Iterable[str] = ()) -> AwayPart:
    """Return the part of a cluster that does not answer, in one round trip to all nodes, or after ``LOOK_S``.

    Args:
        also: Keys beside those of the queues.

    Raises:
        BrokerUnavailable: no node answers.
    """
    if not calls.spread:
        return NOTHING_AWAY
    names = {keys.queue(queue).bodies: queue for queue in queues}
    watched = [*names, *also]
    answers = calls.pipeline([probe(key) for key in watched], raise_errors=False, budget_s=LOOK_S)
    away = {key: found for key, found in zip(watched, answers, strict=True) if isinstance(found, BrokerUnavailable)}
    if not away:
        return NOTHING_AWAY
    silent = [key for key, error in away.items() if not isinstance(error, HashSlotHalfMoved)]
    return AwayPart(
        tuple(sorted({holder_of(calls, key) for key in silent} - {""})),
        tuple(names[key] for key in silent if key in names),
        frozenset(key for key in away if key not in names),
        tuple(half_moved_slots(watched, answers, names)),
    )


def read_nodes(
    calls: RedisCalls,
    *,
    production: bool,
    keys: Keys | None = None,
    queues: Iterable[str] = (),
    away: AwayPart = NOTHING_AWAY,
) -> list[NodeState]:
    """Read the facts of every server, and what is wrong with it.

    Args:
        production: See :func:`switchyard.broker.health.server.judge`.
        keys, queues: The finding about a node that does not answer names those of the queues that it holds.
        away: Nodes that are known not to answer; they are not asked.

    Raises:
        BrokerUnavailable: no server answers.
    """
    nodes = calls.nodes()
    if len(nodes) == 1 and "" in nodes:
        facts = read_facts(calls)
        return [NodeState("", facts, tuple(judge(facts, production=production)))]
    budget_s = calls.budget_s / len(nodes)  # one after the other, and each may hang

    def read(address: str, node: RedisCalls) -> NodeState:
        state = None if address in away.nodes else _read(address, node, production, budget_s)
        return state or NodeState(address, None, ())

    states = {address: read(address, node) for address, node in nodes.items()}
    if silent := [address for address, state in states.items() if state.facts is None]:  # or a master no longer
        nodes = calls.nodes(silent=silent[0])
        states = {address: states.get(address) or read(address, node) for address, node in nodes.items()}
    found = list(states.values())
    if all(state.facts is None for state in found):
        raise BrokerUnavailable("INFO", "no node of the cluster answers", outcome="refused")
    if all(state.facts is not None for state in found) or keys is None:
        held: dict[str, list[str]] = {}
    else:
        held = places_of(calls, keys, queues)
    return [
        state if state.facts is not None else replace(state, findings=(_node_away(held.get(state.address, ())),))
        for state in found
    ]


def _read(address: str, node: RedisCalls, production: bool, budget_s: float) -> NodeState | None:
    try:
        facts = read_facts(node, budget_s=budget_s)
    except BrokerUnavailable:
        return None
    found = [item for item in judge(facts, production=production) if item.code not in ALONE_ONLY]
    return NodeState(address, facts, tuple(found))


def _node_away(queues: Iterable[str]) -> ServerFinding:
    return ServerFinding(
        "node_away",
        "error",
        f"it does not answer; {stands_still(list(queues))}",
        "Start it, or let a replica of it take over; the other nodes' queues go on.",
    )


def by_code(states: Iterable[NodeState]) -> list[ServerFinding]:
    """Return the findings of all servers, worst first; those of several nodes with one code are one."""
    found: defaultdict[str, list[tuple[str, ServerFinding]]] = defaultdict(list)
    for state in states:
        for item in state.findings:
            found[item.code].append((state.address, item))
    joined = []
    for items in found.values():
        seen = "; ".join(f"node {address}: {item.seen}" if address else item.seen for address, item in items)
        joined.append(replace(items[0][1], seen=seen))
    return sorted(joined, key=lambda item: item.severity)


def places_of(calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> dict[str, list[str]]:
    """Return the queues that each master holds, by its address.

    A queue whose hash slot has no master is left out.

    Raises:
        BrokerUnavailable: no node answers.
    """
    found: dict[str, list[str]] = {address: [] for address in calls.nodes()}
    for queue in queues:
        if address := holder_of(calls, keys.queue(queue).bodies):
            found.setdefault(address, []).append(queue)
    return found


def holder_of(calls: RedisCalls, key: str) -> str:
    """Return the address of a key's node, "" on a single server and while no node has the hash slot."""
    try:
        return calls.node_of(key)
    except BrokerUnavailable:
        return ""
