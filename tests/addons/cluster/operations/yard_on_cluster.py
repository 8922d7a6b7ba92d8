"""The project's yard on a cluster of three masters without replicas, and what pages, doctor and commands say of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dramatiq
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from prometheus_client import CollectorRegistry, generate_latest

from switchyard.broker.clock import now_ms
from switchyard.broker.health.servers import servers_of
from switchyard.broker.interface import Facilities
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.conf import declared_yard
from switchyard.long_running import SCHEDULER, Leadership
from switchyard.operations.findings.finding import Finding
from switchyard.operations.metrics import BrokerMetrics
from switchyard.operations.overview import Room
from switchyard.wiring import build_yard
from tests.addons.cluster.nodes import ClusterUnderTest, Node
from tests.factories.brokers import the_global_broker


@contextmanager
def yard_on_cluster(folder: Path) -> Iterator[ClusterUnderTest]:
    """Start a cluster and put the project's yard on it."""
    with ClusterUnderTest(folder) as cluster:
        yard = declared_yard()
        broker = build_yard(yard, connect(cluster.url), yard.keys)
        broker.actors = dict(dramatiq.get_broker().actors)
        own = replace(settings.SWITCHYARD, broker_url=cluster.url)
        with override_settings(SWITCHYARD=own, DEBUG=True), the_global_broker(broker):
            yield cluster


def held_by(cluster: ClusterUnderTest, node: Node) -> list[str]:
    keys = declared_yard().keys
    return [queue.name for queue in declared_yard().queues if cluster.owner(keys.queue(queue.name).bodies) is node]


def fill(found: Facilities) -> dict[str, str]:
    """Send a job to every queue, let every pool report and a scheduler lead; return queue -> job."""
    broker, sent = dramatiq.get_broker(), {}
    queues = [queue.name for queue in declared_yard().queues]
    servers_of(found.records.calls, found.records.keys, queues).keyspace().prepare()
    for queue in declared_yard().queues:
        actor: Any = dramatiq.actor(lambda: None, broker=broker, queue_name=queue.name, actor_name=f"of_{queue.name}")
        sent[queue.name] = actor.send().message_id
    report(found)
    assert Leadership(found.records.calls, found.records.keys, SCHEDULER, lease_s=600).acquire_or_renew()
    return sent


def report(found: Facilities) -> None:
    now = now_ms()
    for pool in declared_yard().pools:
        found.pools.write(
            PoolReport(
                pool=pool.name, host="h", pid=1, kind=pool.kind, slots=pool.total_slots, busy=0, started_at=now,
                beat_at=now, state="up", restarts={},
                children=[{"pid": 2, "ready": True, "busy": 0, "done": 0, "rss_bytes": 1}],
            )
        )  # fmt: skip


def words(room: Room) -> dict[str, str]:
    return {row.name: row.state.word for row, _ in room.rows if row.kind == "queue"}


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {found.name: found for found in findings}


def output_of(*command: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("switchyard", *command, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def metrics() -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(BrokerMetrics())  # type: ignore[arg-type]
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
