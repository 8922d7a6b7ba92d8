"""Facts and findings of every server that holds keys: the only one, or the masters of a cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from broker.errors import BrokerUnavailable
from broker.health.server import ServerFacts, ServerFinding, judge, read_facts
from broker.keys.keys import Keys
from broker.redis.calls import RedisCalls


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


def read_nodes(calls: RedisCalls, *, production: bool) -> list[NodeState]:
    """Read the facts of every server, and what is wrong with it.

    Args:
        production: See :func:`broker.health.server.judge`.

    Raises:
        BrokerUnavailable: no server answers.
    """
    nodes = calls.nodes()
    if len(nodes) == 1 and "" in nodes:
        facts = read_facts(calls)
        return [NodeState("", facts, tuple(judge(facts, production=production)))]
    budget_s = calls.budget_s / len(nodes)  # one after the other, and each may hang
    found = [_read(address, node, production, budget_s) for address, node in nodes.items()]
    if all(state.facts is None for state in found):
        raise BrokerUnavailable("INFO", "no node of the cluster answers", outcome="refused")
    return found


def _read(address: str, node: RedisCalls, production: bool, budget_s: float) -> NodeState:
    try:
        facts = read_facts(node, budget_s=budget_s)
    except BrokerUnavailable as error:
        missing = ServerFinding(
            "node_away",
            "error",
            f"it does not answer ({error.kind}); the queues that it holds wait",
            "Start it, or let a replica of it take over; the other nodes' queues go on.",
        )
        return NodeState(address, None, (missing,))
    found = [item for item in judge(facts, production=production) if item.code != "cluster"]
    return NodeState(address, facts, tuple(found))


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

    Raises:
        BrokerUnavailable: no node answers.
    """
    found: dict[str, list[str]] = {address: [] for address in calls.nodes()}
    for queue in queues:
        found.setdefault(calls.node_of(keys.queue(queue).bodies), []).append(queue)
    return found
