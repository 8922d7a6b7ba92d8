"""A watch over a cluster sees every master, and notices a family whose node lost its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchyard.addons.cluster.hash_slots import SLOTS
from switchyard.addons.cluster.servers import PARTS, Masters, marks_of_part
from switchyard.broker.keys import Keys
from switchyard.broker.queue.leases import LeaseKeeper
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.workers.preflight import Watch
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.waiting import wait_for

# On three different masters.
QUEUES = ("b", "c", "a")
KEYS = Keys("watched")


def watch_on(calls: RedisCalls) -> Watch:
    return Watch(calls, KEYS, QUEUES, production=True)


def test_every_master_is_checked_and_named(cluster: ClusterUnderTest, calls: RedisCalls) -> None:
    wrong = cluster.masters[1]
    wrong.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        watch = watch_on(calls)
        watch.generation.prepare()
        [found] = watch.look().findings
        refused = [bool(calls.command("EXISTS", KEYS.queue(queue).refused)) for queue in QUEUES]
    finally:
        wrong.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert found.code == "evicting"
    assert found.seen.startswith(f"node {wrong.address}: ")
    assert refused == [calls.place_of(KEYS.queue(queue).bodies) == wrong.address for queue in QUEUES]
    assert refused.count(True) == 1


def test_a_look_waits_once_for_a_node_that_hangs(calls: RedisCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, trips, send = watch_on(calls), list[Any](), calls.pipeline
    watch.generation.prepare()

    def counted(commands: Any, **options: Any) -> list[Any]:
        trips.append(commands)
        return send(commands, **options)

    monkeypatch.setattr(calls, "pipeline", counted)
    watch.look()
    with_types = len(trips)
    watch.look()

    assert (with_types, len(trips)) == (2, 3), "of its own keys, and once a minute of the types of all"


def test_queues_are_listed_by_their_node(cluster: ClusterUnderTest, calls: RedisCalls) -> None:
    places = Masters(calls, KEYS, QUEUES).queues_by_place()

    assert [places[node.address] for node in cluster.masters] == [["b"], ["c"], ["a"]]


def test_a_node_that_lost_its_keys_is_noticed(cluster: ClusterUnderTest, calls: RedisCalls) -> None:
    watch, later = watch_on(calls), watch_on(calls)
    assert watch.generation.prepare()
    assert watch.look().findings == ()

    cluster.masters[2].ask("FLUSHALL")
    paused = watch.look()
    QueueOperations(calls, KEYS.queue("a")).enqueue([Entry("m", b"{}")])

    assert [found.code for found in paused.findings] == ["keyspace"]
    assert paused.pause
    assert later.generation.prepare() == ""
    assert later.look().pause
    assert watch.generation.accept()
    assert not watch.look().pause and not later.look().pause


def test_a_marker_moves_with_its_family(cluster: ClusterUnderTest, calls: RedisCalls) -> None:
    watch = watch_on(calls)
    watch.generation.prepare()
    home = cluster.owner(KEYS.queue("a").bodies)

    cluster.move_at_once(KEYS.queue("a").bodies, cluster.another(home))

    assert watch.look().findings == ()
    cluster.move_at_once(KEYS.queue("a").bodies, home)


@pytest.mark.parametrize("number", range(3))
def test_a_master_without_a_queue_that_lost_its_keys_is_noticed(
    cluster: ClusterUnderTest, calls: RedisCalls, number: int
) -> None:
    node = cluster.masters[number]
    queues = [queue for queue in QUEUES if calls.place_of(KEYS.queue(queue).bodies) != node.address]
    watch, later = (Watch(calls, KEYS, queues, production=True) for _ in range(2))
    assert watch.generation.prepare()
    assert watch.look().findings == ()

    node.ask("FLUSHALL")
    paused = watch.look()

    assert [found.code for found in paused.findings] == ["keyspace"]
    assert (
        f"emptied, or this is another database: the marker that was there is gone; node {node.address} " in paused.pause
    )
    assert len(queues) == 2 and not any(f" {queue}," in paused.pause for queue in queues)
    assert later.look().pause and later.generation.is_missed()
    assert watch.generation.accept()
    assert not watch.look().pause and not later.look().pause


def test_what_a_master_lost_is_named(cluster: ClusterUnderTest, calls: RedisCalls) -> None:
    watch = watch_on(calls)
    watch.generation.prepare()
    homes = {KEYS.pool_reports(): "pool reports", KEYS.alerts_due(): "alerts"}

    for queue in QUEUES:
        node = cluster.owner(KEYS.queue(queue).bodies)
        node.ask("FLUSHALL")
        here = [what for key, what in homes.items() if calls.place_of(key) == node.address]
        held = ", ".join([queue, *here, "locks and rate limits"])
        assert watch.look().pause.endswith(f"gone; node {node.address} lost keys, it holds {held}")
        watch.generation.accept()
        watch.look()


def test_a_marker_that_moves_to_another_master_is_found_there(cluster: ClusterUnderTest, calls: RedisCalls) -> None:
    watch = watch_on(calls)
    watch.generation.prepare()
    marker = marks_of_part(KEYS, PARTS[0])[0]
    home = cluster.owner(marker)

    cluster.move_at_once(marker, cluster.another(home))

    assert watch.look().findings == ()
    cluster.move_at_once(marker, home)


def test_a_master_without_a_marker_is_told(cluster: ClusterUnderTest, calls: RedisCalls) -> None:
    masters = Masters(calls, KEYS, QUEUES)
    assert set(masters.unmarked([]).values()) == {True}

    watch_on(calls).generation.prepare()
    marked = [marker for marker, _ in Masters(calls, KEYS, ()).marks() if calls.command("EXISTS", marker)]

    assert masters.unmarked(marked) == {}


def test_a_master_that_is_away_stops_its_own_queues_leases_only(tmp_path: Path) -> None:
    with ClusterUnderTest(tmp_path / "cluster") as cluster:
        calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)
        watch = watch_on(calls)
        watch.generation.prepare()
        keeper = LeaseKeeper({name: QueueOperations(calls, KEYS.queue(name)) for name in QUEUES}, [
            (name, "live") for name in QUEUES
        ])  # fmt: skip
        keeper.adopt("pool.1")
        wait_for(lambda: keeper.tick() or keeper.leased_until_s("pool.1") > 0)
        until_s = keeper.leased_until_s("pool.1")

        dead = cluster.masters[0]
        dead.kill()
        wait_for(lambda: keeper.tick() or keeper.leased_until_s("pool.1") > until_s, what="the others are renewed")
        masters = Masters(calls, KEYS, QUEUES)
        codes = {found.code for found in masters.findings(masters.read(production=True))}
        health = watch.look()
        part = masters.away(also=[KEYS.queue("b").token, KEYS.queue("c").token])

        assert (part.places, part.queues, part.keys) == ((dead.address,), ("b",), {KEYS.queue("b").token})
        assert part.findings == () and part.starts_nothing == {"b"}
        assert not keeper.away
        assert codes == {"node_away"}
        assert not health.pause and health.red
        assert f"node {dead.address}: it does not answer; b starts nothing" in health.findings[0].seen
        calls.close()


def test_a_master_that_became_a_replica_is_no_finding(tmp_path: Path) -> None:
    """Clients notice a failover with their next call for one of its slots; until then they ask the former master."""
    with ClusterUnderTest(tmp_path / "cluster", replicas=1) as cluster:
        calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)
        before = set(calls.places())
        former = cluster.owner("{c}")
        cluster.replica_of(former).ask("CLUSTER", "FAILOVER")
        wait_for(lambda: b"role:slave" in former.ask("INFO", "replication"), what="the former master is a replica")

        masters = Masters(calls, KEYS, QUEUES)
        looks = masters.read(production=True)
        calls.close()

    assert {look.place for look in looks} == before
    assert [look.facts.role for look in looks if look.place == former.address and look.facts] == ["slave"]
    assert masters.findings(looks) == []


@pytest.mark.parametrize("looked", [False, True], ids=["unseen", "seen"])
def test_a_former_master_that_is_stopped_is_no_node_that_is_away(tmp_path: Path, looked: bool) -> None:
    with ClusterUnderTest(tmp_path / "cluster", replicas=1, node_timeout_ms=5_000) as cluster:
        calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)
        watch = watch_on(calls)
        watch.generation.prepare()
        key = KEYS.queue("a").bodies
        former = cluster.owner(key)
        heir = cluster.replica_of(former)

        heir.ask("CLUSTER", "FAILOVER")
        wait_for(lambda: cluster.owner(key) is heir, what="the replica is the master")
        if looked:
            assert watch.look().findings == ()
        former.kill()

        assert watch.look().findings == ()
        assert set(calls.places()) == {node.address for node in (*cluster.masters, heir)} - {former.address}
        calls.close()


def test_a_node_that_gave_all_slots_away_and_left_is_no_node_that_is_away(tmp_path: Path) -> None:
    with ClusterUnderTest(tmp_path / "cluster", node_timeout_ms=5_000) as cluster:
        calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)
        watch = watch_on(calls)
        watch.generation.prepare()
        key = KEYS.queue("a").bodies
        leaving, taker = cluster.owner(key), cluster.another(cluster.owner(key))
        at = cluster.masters.index(leaving)
        share = -(-SLOTS // len(cluster.masters))

        first, last = at * share, min((at + 1) * share, SLOTS) - 1
        leaving.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", taker.id)
        wait_for(lambda: cluster.owner(key) is taker, what="the slots are on the other node")
        assert watch.look().findings == ()
        leaving.kill()

        assert watch.look().findings == ()
        assert leaving.address not in calls.places()
        calls.close()
