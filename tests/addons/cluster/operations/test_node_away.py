"""One master of a cluster is killed: pages, doctor, metrics and commands name its queues and judge the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.history.filters import Filter
from switchyard.jobs import live
from switchyard.jobs.listing.pages import find_jobs
from switchyard.long_running import SCHEDULER
from switchyard.operations import views
from switchyard.operations.findings.examine import examine
from switchyard.operations.overview import Room, overview
from switchyard.operations.queries import yard_state
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.addons.cluster.operations.yard_on_cluster import (
    by_name,
    fill,
    held_by,
    metrics,
    output_of,
    report,
    words,
    yard_on_cluster,
)
from tests.factories.callers import Caller
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterUnderTest]:
    """The project's yard is on three masters without replicas."""
    with yard_on_cluster(tmp_path / "cluster") as cluster:
        yield cluster


def test_a_master_that_is_killed_takes_its_own_queues_away_only(cluster: ClusterUnderTest, watcher: Client) -> None:
    found, keys, caller = facilities(), declared_yard().keys, Caller()
    sent = fill(found)
    shared = {cluster.owner(keys.pool_reports()), cluster.owner(keys.lock(SCHEDULER))}
    nodes = {node: held_by(cluster, node) for node in cluster.masters}
    dead = next(node for node, names in nodes.items() if names and node not in shared)
    away = nodes[dead]
    there = [name for name in sent if name not in away]

    followed = {found.records.stream_key("j", name): "0-0" for name in (away[0], there[0])}
    for key in followed:
        found.records.calls.command("XADD", key, "*", "event", "progress", "data", "{}")

    dead.kill()
    room: Room = wait_for(lambda: (room := overview()).verdict.label == "Node away" and room, what="it is said")
    report(found)
    room = overview()

    # The overview: the node and its queues by name; everything else is judged.
    assert f"node {dead.address}: it does not answer; {', '.join(away)} start" in room.verdict.sentence
    assert not room.away and room.pools_known and room.pools_up == len(declared_yard().pools)
    assert {name for name, word in words(room).items() if word == "Away"} == set(away)
    assert {row.name: row.waiting for row, _ in room.rows if row.name in there} == dict.fromkeys(there, 1)
    assert "scheduler.down" not in {ranked.finding.name for ranked in room.verdict.findings}
    # Pages.
    for address in (
        reverse("switchyard-operations"),
        reverse("switchyard-queues"),
        *(reverse("switchyard-queue", args=[name]) for name in (away[0], there[0])),
    ):
        page = watcher.get(address)
        assert page.status_code == 200
        assert "the broker does not answer" not in page.content.decode().lower()
    page = watcher.get(reverse("switchyard-queue", args=[away[0]]))
    assert "its node does not answer" in page.content.decode()
    # The list of jobs has the others' jobs, and names what is missing.
    page = find_jobs(Filter())
    assert {line.id for line in page.jobs} == {sent[name] for name in there}
    assert list(page.away) == away and not page.broker_error
    assert found.records.read(sent[there[0]]) is not None
    with pytest.raises(BrokerUnavailable):  # it may be there
        found.records.read(sent[away[0]])
    assert [bool(events) for events in live._read(followed)] == [False, True]
    # API, readiness and metrics.
    queues = caller.get("/queues").json()
    assert (queues["away"], [queue["queue"] for queue in queues["queues"]]) == (away, there)
    assert views._ask_broker() == ""
    values = metrics()
    assert values["switchyard_broker_up"] == 1
    assert {name for name in sent if values[f'switchyard_queue_away{{queue="{name}"}}']} == set(away)
    assert values[f'switchyard_queue_depth{{queue="{there[0]}",state="waiting"}}'] == 1
    assert values["switchyard_scheduler_up"] == 1
    # Doctor and commands.
    told = by_name(examine())
    assert dead.address in told["broker.node_away"].seen and away[0] in told["broker.node_away"].seen
    assert not {"broker.away", "broker.hangs", "pools.not_checked", "queues.not_checked"} & set(told)
    listed, sentences = output_of("queues")
    assert there[0] in listed and dead.address in sentences
    assert f"{away[0]}: away" in output_of("queues", "status", away[0])[0]
    body = json.loads(output_of("jobs", "list", "--json")[0])
    assert body["away"] == away and body["missing"] == []

    # Another node, with the pools' reports: which pools run is unknown, and no pool is called down.
    dead.start()
    cluster.wait_until_whole()
    other = cluster.owner(keys.pool_reports())
    other.kill()
    state = wait_for(lambda: not (state := yard_state()).server.pools_known and state, what="reports are unknown")
    room = overview()

    assert set(state.server.away.queues) == set(nodes[other])
    assert not room.pools_known and "reports are on it" in room.verdict.then
    assert not {name for ranked in room.verdict.findings if (name := ranked.finding.name).startswith("pools.")}
    assert "No pool" not in words(room).values()
    assert not [name for name in metrics() if name.startswith("switchyard_worker_up")]
    assert not {name for name in by_name(examine()) if name in ("pools.down", "broker.away")}
