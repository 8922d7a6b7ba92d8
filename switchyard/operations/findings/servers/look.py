"""Check of the broker's server, or of every master of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from switchyard.addons.cluster import findings as cluster
from switchyard.addons.cluster.client import each_server
from switchyard.broker.health.nodes import NodeState, away_part, by_code, read_nodes
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers import node
from switchyard.operations.findings.servers.causes import CAUSES, GROUP
from switchyard.operations.server_state import read_server_state


def look_at_servers() -> Iterator[Finding]:
    """Check the server.

    Raises:
        BrokerError: the server does not answer.
    """
    client = connect(switchyard_settings().broker_url, profile="quick")
    keys, queues = declared_yard().keys, [queue.name for queue in declared_yard().queues]
    calls = calls_on(client, budget_s=1.0)
    try:
        client.ping()
        away = away_part(calls, keys, queues)
        nodes = read_nodes(calls, production=True, keys=keys, queues=queues, away=away)
        yield from _server(calls, nodes, keys)
        answering = {state.address for state in nodes if state.facts is not None}
        servers = [(address, server) for address, server in each_server(client) if address in answering]
        for address, server in servers:
            yield from _of_node(address, node.minor_defects(server))
        yield from cluster.markers(calls, keys, queues, answering)
        for address, server in servers:
            yield from _of_node(address, [node.latency(server), node.clock(server), *node.slow_log(server, keys)])
        if calls.spread:
            yield from cluster.places(calls, keys)
            yield from cluster.replicas(servers)
    finally:
        calls.close()
        client.close()


def _server(calls: RedisCalls, nodes: list[NodeState], keys: Keys) -> Iterator[Finding]:
    state = read_server_state(calls, keys)
    if state.refusal:
        yield GROUP.error(
            "takes_no_work", f"it accepts no work: {state.refusal}", "The server refuses writes", state.remedy
        )
    found = list(state.findings) + [item for item in by_code(nodes) if item.code == "unverified"]
    for item in found:
        cause, command = CAUSES.get(item.code, ("", ""))
        yield GROUP.finding(item.severity, item.code, item.seen, cause, command or item.remedy)
    for each in nodes:
        if each.facts is not None:
            yield from _of_node(each.address, [node.described(each.facts)])


def _of_node(address: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings with the node of a cluster that they are about."""
    for item in found:
        yield replace(item, seen=f"node {address}: {item.seen}") if address else item
