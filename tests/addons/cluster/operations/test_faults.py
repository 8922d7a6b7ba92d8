"""A reshard is interrupted, a master is killed or lost its keys: pages, doctor, metrics and commands name it alone."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from django.urls import reverse
from prometheus_client import CollectorRegistry, generate_latest

from switchyard.addons.cluster.hash_slots import HashSlotHalfMoved, slot_of
from switchyard.addons.cluster.servers import PARTS, marks_of_part
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.health.servers import servers_of
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.conf import declared_yard
from switchyard.history.filters import Filter
from switchyard.jobs import live
from switchyard.jobs.listing.pages import find_jobs
from switchyard.long_running import SCHEDULER, Leadership
from switchyard.operations import views
from switchyard.operations.findings.examine import examine, run_checks
from switchyard.operations.findings.finding import Finding, FindingGroup
from switchyard.operations.findings.servers import GROUP, look_at_servers
from switchyard.operations.metrics import BrokerMetrics
from switchyard.operations.overview import Room, overview
from switchyard.operations.queries import yard_state
from switchyard.operations.supervisors import read_server_state
from switchyard.wiring import build_yard
from switchyard.workers.preflight import make_watch, mark_keyspace
from tests.addons.cluster.nodes import ClusterUnderTest, Node
from tests.factories.brokers import the_global_broker
from tests.factories.callers import Caller
from tests.factories.commands import end_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
# Two of three masters hold a queue.
YARD = Yard(
    tuple(Queue(name, objective_ms=None, soft_limit_ms=1_000, hard_limit_ms=2_000) for name in ("b", "c")),
    (Pool("pool", "threads", ("b", "c"), processes=1, slots=2),),
)


@pytest.fixture
def cluster(tmp_path) -> Iterator[ClusterUnderTest]:
    """The project's yard is on three masters without replicas."""
    with ClusterUnderTest(tmp_path / "cluster") as cluster:
        yard = declared_yard()
        broker = build_yard(yard, connect(cluster.url), yard.keys)
        broker.actors = dict(dramatiq.get_broker().actors)
        own = replace(settings.SWITCHYARD, broker_url=cluster.url)
        with override_settings(SWITCHYARD=own, DEBUG=True), the_global_broker(broker):
            yield cluster


@pytest.mark.long
@pytest.mark.parametrize("steps", [1, 2], ids=["no key moved", "all keys moved, the slot still open"])
def test_a_slot_that_is_left_half_moved_is_named_with_its_queue(cluster, watcher, steps):
    sent = fill(facilities())
    key = declared_yard().keys.queue("default").bodies
    source, slot = cluster.owner(key), slot_of(key)
    moving = cluster.keys_moved_one_by_one(key, cluster.another(source))
    for _ in range(steps):
        next(moving)

    fact = f"hash slot {slot} is half moved away from node {source.address}; default starts nothing"
    step = f"--cluster fix {source.address}"
    # A view that sends a job.
    actor: Any = dramatiq.get_broker().actors["of_default"]
    with pytest.raises(HashSlotHalfMoved, match=rf"hash slot {slot} is half moved.*{step}"):
        actor.send()
    # Pages: the finding, and every queue with its figures.
    room = overview()
    assert (room.verdict.label, room.verdict.level) == ("Slot half moved", "bad")
    assert fact in room.verdict.sentence and step in room.verdict.then
    assert {name for name, word in words(room).items() if word == "Half moved"} == {"default"}
    assert {row.name: row.waiting for row, _ in room.rows if row.kind == "queue"} == dict.fromkeys(words(room), 1)
    assert "Half moved" in watcher.get(reverse("switchyard-queue", args=["default"])).content.decode()
    # Readiness, which is about this process, and metrics.
    assert views._ask_broker() == ""
    values = metrics()
    assert {name for name in words(room) if values[f'switchyard_queue_away{{queue="{name}"}}']} == {"default"}
    # Doctor.
    told = by_name(examine())
    assert fact in told["broker.half_moved"].seen
    assert told["broker.half_moved"].severity == "error"
    assert step in told["broker.half_moved"].next
    assert not [name for name in told if name.endswith((".not_checked", ".away", ".broken"))]
    assert "pools.ok" in told and [name for name in told if name.startswith("queues.")]
    # The list of jobs has the others' jobs, and names what is missing.
    jobs = find_jobs(Filter())
    assert {line.id for line in jobs.jobs} == {id_ for name, id_ in sent.items() if name != "default"}
    assert list(jobs.away) == ["default"] and not jobs.broker_error
    # Commands.
    assert output_of("queues", "status", "default")[0].startswith("default: half moved")
    code, printed = end_of("broker", "--json")
    [found] = [one for one in json.loads(printed)["findings"] if one["code"] == "half_moved"]
    assert code == 1
    assert fact in found["seen"] and step in found["remedy"]

    # The move ends, and nothing of it is said any more.
    for _ in moving:
        pass
    cluster.wait_until_whole()
    assert actor.send().message_id
    assert "broker.half_moved" not in by_name(examine())


@pytest.mark.long
def test_reports_of_pools_in_a_half_moved_slot_leave_the_queues_in_sight(cluster):
    fill(facilities())
    reports = declared_yard().keys.pool_reports()
    moving = cluster.keys_moved_one_by_one(reports, cluster.another(cluster.owner(reports)))
    next(moving)

    room = overview()
    [half_moved] = [ranked for ranked in room.verdict.findings if ranked.label == "Slot half moved"]
    assert half_moved.level == "warn" and "which pools run is not known" in half_moved.finding.then
    assert not room.away and not room.pools_known
    assert not {word for word in words(room).values() if word in ("Half moved", "No pool", "Unknown")}
    told = by_name(examine())
    assert f"hash slot {slot_of(reports)} is half moved" in told["broker.half_moved"].seen
    assert not [name for name in told if name.endswith((".not_checked", ".broken")) or name == "pools.down"]
    assert views._ask_broker() == ""


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


@pytest.mark.long
def test_a_master_that_is_killed_takes_its_own_queues_away_only(cluster, watcher):
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
    queue_pages = [reverse("switchyard-queue", args=[name]) for name in (away[0], there[0])]
    for address in (reverse("switchyard-operations"), reverse("switchyard-queues"), *queue_pages):
        page = watcher.get(address)
        assert page.status_code == 200
        assert "the broker does not answer" not in page.content.decode().lower()
    assert "its node does not answer" in watcher.get(queue_pages[0]).content.decode()
    # The list of jobs has the others' jobs, and names what is missing.
    page = find_jobs(Filter())
    assert {line.id for line in page.jobs} == {sent[name] for name in there}
    assert list(page.away) == away and not page.broker_error
    assert found.records.read(sent[there[0]]) is not None
    with pytest.raises(BrokerUnavailable):  # it may be there
        found.records.read(sent[away[0]])
    assert [bool(events) for events in live._read(list(followed.items()))] == [False, True]
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


@pytest.fixture
def two_queues(tmp_path) -> Iterator[ClusterUnderTest]:
    with ClusterUnderTest(tmp_path / "cluster") as cluster:
        broker = build_yard(YARD, connect(cluster.url), YARD.keys)
        own = replace(settings.SWITCHYARD, broker_url=cluster.url, topology=YARD)
        with override_settings(SWITCHYARD=own, DEBUG=False), the_global_broker(broker):
            yield cluster


def look() -> dict[str, Finding]:
    return {found.code: found for found in run_checks(FindingGroup("broker"), look_at_servers, 20.0)}


def facts() -> str:
    return "; ".join(found.seen for found in look_at_servers() if found.severity == "ok")


def test_a_master_without_a_queue_that_was_emptied_is_named_everywhere(two_queues):
    found, keys = facilities(), YARD.keys
    holders = {two_queues.owner(keys.queue(queue).bodies) for queue in ("b", "c")}
    [bare] = [node for node in two_queues.masters if node not in holders]
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


def test_a_hash_slot_without_a_node_hides_no_other_finding(two_queues):
    keys = YARD.keys
    holders = {two_queues.owner(keys.queue(queue).bodies) for queue in ("b", "c")}
    tag = next(tag for tag in PARTS if two_queues.owner(marks_of_part(keys, tag)[0]) not in holders)
    assert mark_keyspace() == []
    for node in two_queues.masters:
        node.ask("CLUSTER", "DELSLOTS", slot_of(marks_of_part(keys, tag)[0]))
    calls = calls_on(connect(two_queues.url))

    state, found = read_server_state(calls, keys), look()

    assert not state.away.queues and "away" not in found
    sound = [one.seen for one in look_at_servers() if one.severity == "ok"]
    assert len([seen for seen in sound if " holds " in seen and "slow log" not in seen]) == 3
    calls.close()


def test_a_master_with_too_few_slots_is_named_with_what_to_do(two_queues):
    bare = two_queues.owner("{a}")
    taker = two_queues.owner("{b}")
    assert mark_keyspace() == []

    for tag in PARTS:
        if two_queues.owner(f"{{{tag}}}") is bare:
            two_queues.move_at_once(marks_of_part(YARD.keys, tag)[0], taker)

    found = look()["no_marker"]
    assert bare.address in found.seen and "nor 512 slots in a row" in found.cause
    assert "slot group" in found.next


def replica_findings() -> list[Finding]:
    return [found for found in run_checks(GROUP, look_at_servers, 20.0) if found.code == "no_replica"]


def test_masters_that_no_replica_follows_are_named(tmp_path, configure):
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
