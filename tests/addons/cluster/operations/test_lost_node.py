"""Masters of a cluster that lost their keys, or that nothing could replace, are named until that is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from switchyard.addons.cluster.hash_slots import slot_of
from switchyard.addons.cluster.servers import PARTS, marks_of_part
from switchyard.broker.interface import facilities
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import Finding, FindingGroup
from switchyard.operations.findings.servers import GROUP, look_at_servers
from switchyard.operations.overview import overview
from switchyard.operations.supervisors import read_server_state
from switchyard.wiring import build_yard
from switchyard.workers.preflight import make_watch, mark_keyspace
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.factories.brokers import the_global_broker
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

# Two of three masters hold a queue.
YARD = Yard(
    tuple(Queue(name, objective_ms=None, soft_limit_ms=1_000, hard_limit_ms=2_000) for name in ("b", "c")),
    (Pool("pool", "threads", ("b", "c"), processes=1, slots=2),),
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterUnderTest]:
    with ClusterUnderTest(tmp_path / "cluster") as cluster:
        broker = build_yard(YARD, connect(cluster.url), YARD.keys)
        own = replace(settings.SWITCHYARD, broker_url=cluster.url, topology=YARD)
        with override_settings(SWITCHYARD=own, DEBUG=False), the_global_broker(broker):
            yield cluster


def look() -> dict[str, Finding]:
    return {found.code: found for found in run_checks(FindingGroup("broker"), look_at_servers, 20.0)}


def facts() -> str:
    return "; ".join(found.seen for found in look_at_servers() if found.severity == "ok")


def test_a_master_without_a_queue_that_was_emptied_is_named_everywhere(cluster: ClusterUnderTest) -> None:
    found, keys = facilities(), YARD.keys
    holders = {cluster.owner(keys.queue(queue).bodies) for queue in ("b", "c")}
    [bare] = [node for node in cluster.masters if node not in holders]
    assert look()["no_marker"].next == "Start a pool, web or scheduler"
    assert mark_keyspace() == []
    sound = look()
    assert "keyspace " in facts() and "no_marker" not in sound
    assert not {"no_marker", "unmarked", "keyspace"} & set(sound)
    watch = make_watch()
    assert not watch.look().pause

    bare.ask("FLUSHALL")
    paused = watch.look().pause
    lossy, room = look(), overview()
    told = lossy["keyspace"]

    lost = f"node {bare.address} lost keys, it holds "
    assert lost in paused and "locks and rate limits" in paused
    assert lost in told.seen and "manage.py switchyard broker accept" in told.next
    assert not {"no_marker", "unmarked"} & set(lossy), "that its marker was there is known"
    assert [item.code for item in read_server_state(found.records.calls, found.records.keys).errors] == ["keyspace"]
    assert room.verdict.label == "Unsafe" and lost in room.verdict.sentence

    call_command("switchyard", "broker", "accept")
    assert not watch.look().pause
    watch.close()
    assert "keyspace" not in look()


def test_a_hash_slot_without_a_node_hides_no_other_finding(cluster: ClusterUnderTest) -> None:
    keys = YARD.keys
    holders = {cluster.owner(keys.queue(queue).bodies) for queue in ("b", "c")}
    tag = next(tag for tag in PARTS if cluster.owner(marks_of_part(keys, tag)[0]) not in holders)
    assert mark_keyspace() == []
    for node in cluster.masters:
        node.ask("CLUSTER", "DELSLOTS", slot_of(marks_of_part(keys, tag)[0]))
    calls = calls_on(connect(cluster.url))

    state, found = read_server_state(calls, keys), look()

    assert not state.away.queues and "away" not in found
    assert (
        len(
            [
                one
                for one in look_at_servers()
                if one.severity == "ok" and "slow log" not in one.seen and " holds " in one.seen
            ]
        )
        == 3
    )
    calls.close()


def test_a_master_with_too_few_slots_is_named_with_what_to_do(cluster: ClusterUnderTest) -> None:
    bare = cluster.owner("{a}")
    taker = cluster.owner("{b}")
    assert mark_keyspace() == []

    for tag in PARTS:
        if cluster.owner(f"{{{tag}}}") is bare:
            cluster.move_at_once(marks_of_part(YARD.keys, tag)[0], taker)

    found = look()["no_marker"]
    assert bare.address in found.seen and "nor 512 slots in a row" in found.cause
    assert "slot group" in found.next


def replica_findings() -> list[Finding]:
    return [found for found in run_checks(GROUP, look_at_servers, 20.0) if found.code == "no_replica"]


def test_masters_that_no_replica_follows_are_named(tmp_path: Path, configure: Callable[..., None]) -> None:
    with ClusterUnderTest(tmp_path / "cluster", replicas=1) as cluster:
        configure(broker_url=cluster.url)
        assert replica_findings() == []

        lone, kept, another = cluster.masters
        cluster.replica_of(lone).kill()
        [one] = wait_for(replica_findings)
        cluster.replica_of(another).kill()
        [two] = wait_for(lambda: [found for found in replica_findings() if another.address in found.seen])

    assert (one.severity, one.group) == ("warning", "broker")
    assert lone.address in one.seen and kept.address not in one.seen
    assert lone.address in two.seen and kept.address not in two.seen
    assert "its queues wait" in one.seen and "the queues of each wait" in two.seen
    assert "--cluster-slave" in two.next
