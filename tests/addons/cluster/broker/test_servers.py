"""A watch over a cluster sees every master: one that lost its keys, one that is away, a hash slot on two nodes."""

import itertools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from switchyard.addons.cluster.hash_slots import SLOTS, HashSlotHalfMoved, slot_of
from switchyard.addons.cluster.servers import PARTS, Masters, marks_of_part
from switchyard.broker.health.servers import NOTHING_AWAY
from switchyard.broker.keys import Keys
from switchyard.broker.queue.leases import LeaseKeeper
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.workers.preflight import Watch
from tests.addons.cluster.nodes import ClusterUnderTest, Node, own_cluster
from tests.waiting import wait_for

# On three different masters.
QUEUES = ("b", "c", "a")
KEYS = Keys("watched")
HALVES = Keys("halves")
# Of each case its own, whose slot is moved once: two moves at short intervals may leave nodes with two opinions.
NAMES = (f"half-{number}" for number in itertools.count())


def watch_on(calls: RedisCalls, keys: Keys = KEYS, queues: Sequence[str] = QUEUES) -> Watch:
    return Watch(calls, keys, queues, production=True)


def prepared(*arguments: Any) -> Watch:
    watch = watch_on(*arguments)
    watch.generation.prepare()
    return watch


def test_every_master_is_checked_and_named(cluster, calls):
    wrong = cluster.masters[1]
    wrong.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        [found] = prepared(calls).look().findings
        refused = [bool(calls.command("EXISTS", KEYS.queue(queue).refused)) for queue in QUEUES]
    finally:
        wrong.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert found.code == "evicting"
    assert found.seen.startswith(f"node {wrong.address}: ")
    assert refused == [calls.place_of(KEYS.queue(queue).bodies) == wrong.address for queue in QUEUES]
    assert refused.count(True) == 1


def test_a_look_waits_once_for_a_node_that_hangs(calls, monkeypatch):
    watch = prepared(calls)
    sent = mock.Mock(side_effect=calls.pipeline)
    monkeypatch.setattr(calls, "pipeline", sent)
    watch.look()
    with_types = sent.call_count
    watch.look()

    assert (with_types, sent.call_count) == (2, 3), "of its own keys, and once a minute of the types of all"


def test_queues_are_listed_by_their_node(cluster, calls):
    places = Masters(calls, KEYS, QUEUES).queues_by_place()

    assert [places[node.address] for node in cluster.masters] == [["b"], ["c"], ["a"]]


def test_a_node_that_lost_its_keys_is_noticed(cluster, calls):
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


@pytest.mark.parametrize(
    "moved", [KEYS.queue("a").bodies, marks_of_part(KEYS, PARTS[0])[0]], ids=["with its family", "by itself"]
)
def test_a_marker_that_moves_to_another_master_is_found_there(cluster, calls, moved):
    watch, home = prepared(calls), cluster.owner(moved)

    cluster.move_at_once(moved, cluster.another(home))

    assert watch.look().findings == ()
    cluster.move_at_once(moved, home)


@pytest.mark.parametrize("number", range(3))
def test_a_master_without_a_queue_that_lost_its_keys_is_noticed(cluster, calls, number):
    node = cluster.masters[number]
    queues = [queue for queue in QUEUES if calls.place_of(KEYS.queue(queue).bodies) != node.address]
    watch, later = (watch_on(calls, KEYS, queues) for _ in range(2))
    assert watch.generation.prepare()
    assert watch.look().findings == ()

    node.ask("FLUSHALL")
    paused = watch.look()

    assert [found.code for found in paused.findings] == ["keyspace"]
    gone = "emptied, or this is another database: the marker that was there is gone"
    assert f"{gone}; node {node.address} " in paused.pause
    assert len(queues) == 2 and not any(f" {queue}," in paused.pause for queue in queues)
    assert later.look().pause and later.generation.is_missed()
    assert watch.generation.accept()
    assert not watch.look().pause and not later.look().pause


def test_what_a_master_lost_is_named(cluster, calls):
    watch = prepared(calls)
    homes = {KEYS.pool_reports(): "pool reports", KEYS.alerts_due(): "alerts"}

    for queue in QUEUES:
        node = cluster.owner(KEYS.queue(queue).bodies)
        node.ask("FLUSHALL")
        here = [what for key, what in homes.items() if calls.place_of(key) == node.address]
        held = ", ".join([queue, *here, "locks and rate limits"])
        assert watch.look().pause.endswith(f"gone; node {node.address} lost keys, it holds {held}")
        watch.generation.accept()
        watch.look()


def test_a_master_without_a_marker_is_told(cluster, calls):
    masters = Masters(calls, KEYS, QUEUES)
    assert set(masters.unmarked([]).values()) == {True}

    watch_on(calls).generation.prepare()
    marked = [marker for marker, _ in Masters(calls, KEYS, ()).marks() if calls.command("EXISTS", marker)]

    assert masters.unmarked(marked) == {}


def test_a_master_that_is_away_stops_its_own_queues_leases_only(tmp_path):
    with own_cluster(tmp_path) as (cluster, calls):
        watch = prepared(calls)
        families = {name: QueueOperations(calls, KEYS.queue(name)) for name in QUEUES}
        keeper = LeaseKeeper(families, [(name, "live") for name in QUEUES])
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


def test_a_master_that_became_a_replica_is_no_finding(tmp_path):
    """Clients notice a failover with their next call for one of its slots; until then they ask the former master."""
    with own_cluster(tmp_path, replicas=1) as (cluster, calls):
        before = set(calls.places())
        former = cluster.owner("{c}")
        cluster.replica_of(former).ask("CLUSTER", "FAILOVER")
        wait_for(lambda: b"role:slave" in former.ask("INFO", "replication"), what="the former master is a replica")

        masters = Masters(calls, KEYS, QUEUES)
        looks = masters.read(production=True)

    assert {look.place for look in looks} == before
    assert [look.facts.role for look in looks if look.place == former.address and look.facts] == ["slave"]
    assert masters.findings(looks) == []


@pytest.mark.parametrize("looked", [False, True], ids=["unseen", "seen"])
def test_a_former_master_that_is_stopped_is_no_node_that_is_away(tmp_path, looked):
    with own_cluster(tmp_path, replicas=1, node_timeout_ms=5_000) as (cluster, calls):
        watch = prepared(calls)
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


def test_a_node_that_gave_all_slots_away_and_left_is_no_node_that_is_away(tmp_path):
    with own_cluster(tmp_path, node_timeout_ms=5_000) as (cluster, calls):
        watch = prepared(calls)
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


@dataclass(frozen=True)
class Move:
    """An interrupted move of a queue's hash slot."""

    queue: str
    steps: Iterator[int]
    cluster: ClusterUnderTest
    target: Node

    @property
    def key(self) -> str:
        return HALVES.queue(self.queue).bodies

    def end(self) -> None:
        for _ in self.steps:
            pass
        self.cluster.wait_until_agreed(self.key, self.target)


@pytest.fixture(params=["no key of the queue", "no key moved", "every key moved"])
def move(cluster, calls, request) -> Iterator[Move]:
    """The move of a queue's slot, in each state in which it may be interrupted."""
    queue = next(NAMES)
    key = HALVES.queue(queue).bodies
    target = cluster.another(cluster.owner(key))
    move = Move(queue, cluster.keys_moved_one_by_one(key, target), cluster, target)
    prepared(calls, HALVES, [queue, "c"])
    if request.param != "no key of the queue":
        QueueOperations(calls, HALVES.queue(queue)).enqueue([Entry("waits", b"{}")])
    next(move.steps)
    if request.param == "every key moved":
        next(move.steps)
    yield move
    move.end()


def test_slot_node_and_queue_are_named_and_the_other_queue_works(calls, move):
    queue, node, slot = move.queue, calls.place_of(move.key), slot_of(move.key)
    watch = watch_on(calls, HALVES, [queue, "c"])

    part = Masters(calls, HALVES, [queue, "c"]).away()
    assert (part.places, part.queues, part.keys, part.blocked) == ((), (), frozenset(), {queue})
    assert f"hash slot {slot} is half moved away from node {node}" in part.findings[0].seen
    assert Masters(calls, HALVES, [queue]).away().blocked, "also where the yard has no other queue"
    [found] = watch.look().findings
    assert (found.code, found.severity) == ("half_moved", "error")
    half_moved = f"hash slot {slot} is half moved away from node {node}"
    assert found.seen == f"{half_moved}; {queue} starts nothing and takes no new jobs"
    assert found.remedy.endswith(f"`valkey-cli --cluster fix {node}`.")
    with pytest.raises(HashSlotHalfMoved) as refused:
        QueueOperations(calls, HALVES.queue(queue)).enqueue([Entry("refused", b"{}")])
    assert (refused.value.slot, refused.value.node, refused.value.outcome) == (slot, node, "refused")
    QueueOperations(calls, HALVES.queue("c")).enqueue([Entry("taken", b"{}")])

    move.end()
    QueueOperations(calls, HALVES.queue(queue)).enqueue([Entry("taken", b"{}")])
    assert watch.look().findings == ()
    assert Masters(calls, HALVES, [queue, "c"]).away() == NOTHING_AWAY
    assert queue in Masters(calls, HALVES, [queue]).queues_by_place()[move.target.address]


def test_a_plain_command_follows_a_key_to_its_new_node(cluster, calls, move):
    client = connect(cluster.url, profile="quick")

    assert client.hlen(move.key) == calls.command("HLEN", move.key)
    assert client.hlen(HALVES.queue(move.queue).dead) == 0
    client.close()


def test_a_move_that_ends_while_one_looks_is_no_finding(cluster, move, monkeypatch):
    monkeypatch.setattr("switchyard.addons.cluster.servers.LOOK_S", 30.0)  # a busy machine needs over 1 s for the rest
    calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0, refused_s=0.1)  # as the rooms'
    ending = threading.Timer(0.4, lambda: list(move.steps))
    began_s = time.monotonic()
    ending.start()

    found = Masters(calls, HALVES, [move.queue, "c"]).away()
    took_s = time.monotonic() - began_s
    ending.join()
    calls.close()

    assert found == NOTHING_AWAY
    assert took_s > 0.3, "the move had ended before the probe"


@pytest.mark.parametrize("lost", ["its node", "its side of the move"])
def test_a_move_whose_target_is_lost_leaves_the_slot_half_moved(tmp_path, lost):
    queue, key = "half", HALVES.queue("half").bodies
    with own_cluster(tmp_path) as (cluster, calls):
        source = cluster.owner(key)
        target = cluster.another(source)
        watch = prepared(calls, HALVES, [queue])
        next(cluster.keys_moved_one_by_one(key, target))
        if lost == "its node":
            target.kill()
        else:
            target.ask("CLUSTER", "SETSLOT", slot_of(key), "STABLE")

        asked = commands_of(source)
        part = Masters(calls, HALVES, [queue]).away()
        asked = commands_of(source) - asked
        with pytest.raises(HashSlotHalfMoved) as refused:
            QueueOperations(calls, HALVES.queue(queue)).enqueue([Entry("refused", b"{}")])
        told = {found.code: found.seen for found in watch.look().findings}

    assert part.blocked == {queue}
    assert f"hash slot {slot_of(key)} is half moved away from node {source.address}" in part.findings[0].seen
    assert source.address not in part.places
    assert asked < 100, "a probe goes from node to node without a pause"
    assert refused.value.node == source.address
    assert f"away from node {source.address}; half starts nothing" in told["half_moved"]
    assert source.address not in told.get("node_away", "")


def commands_of(node: Node) -> int:
    facts = str(node.ask("INFO", "stats"), "ascii").splitlines()
    return next(int(line.partition(":")[2]) for line in facts if line.startswith("total_commands_processed:"))


def test_what_is_not_seen_while_the_broker_is_away_is_not_resolved(tmp_path, caplog):
    with own_cluster(tmp_path, masters=1) as (cluster, calls):
        [node] = cluster.masters
        watch = prepared(calls, HALVES, ["c"])
        node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert [found.code for found in watch.look().findings] == ["evicting"]
        node.kill()
        with caplog.at_level(logging.INFO, logger="switchyard.broker"):
            watch.look()
            assert not [message for message in caplog.messages if "resolved" in message]
            node.start()
            wait_for(lambda: not watch.look().findings, what="the node, restarted with noeviction, is well")

    assert [message for message in caplog.messages if "resolved: the server does not answer" in message]
