"""A hash slot that an interrupted reshard leaves on two nodes is named: by the watch, by probes and by calls."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from switchyard.addons.cluster.hash_slots import HashSlotHalfMoved, slot_of
from switchyard.addons.cluster.servers import Masters
from switchyard.broker.health.servers import NOTHING_AWAY
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.workers.preflight import Watch
from tests.addons.cluster.nodes import ClusterUnderTest, Node
from tests.waiting import wait_for

KEYS = Keys("halves")
# Of each case its own, whose slot is moved once: two moves at short intervals may leave nodes with two opinions.
NAMES = (f"half-{number}" for number in itertools.count())


@dataclass(frozen=True)
class Move:
    """An interrupted move of a queue's hash slot."""

    queue: str
    steps: Iterator[int]
    cluster: ClusterUnderTest
    target: Node

    @property
    def key(self) -> str:
        return KEYS.queue(self.queue).bodies

    def end(self) -> None:
        """Go on with it to its end."""
        for _ in self.steps:
            pass
        self.cluster.wait_until_agreed(self.key, self.target)


@pytest.fixture(params=["no key of the queue", "no key moved", "every key moved"])
def move(cluster: ClusterUnderTest, calls: RedisCalls, request: pytest.FixtureRequest) -> Iterator[Move]:
    """The move of a queue's slot, in each state in which it may be interrupted."""
    queue = next(NAMES)
    key = KEYS.queue(queue).bodies
    target = cluster.another(cluster.owner(key))
    move = Move(queue, cluster.keys_moved_one_by_one(key, target), cluster, target)
    Watch(calls, KEYS, [queue, "c"], production=True).generation.prepare()
    if request.param != "no key of the queue":
        QueueOperations(calls, KEYS.queue(queue)).enqueue([Entry("waits", b"{}")])
    next(move.steps)
    if request.param == "every key moved":
        next(move.steps)
    yield move
    move.end()


def test_slot_node_and_queue_are_named_and_the_other_queue_works(calls: RedisCalls, move: Move) -> None:
    queue, node, slot = move.queue, calls.place_of(move.key), slot_of(move.key)
    watch = Watch(calls, KEYS, [queue, "c"], production=True)

    part = Masters(calls, KEYS, [queue, "c"]).away()
    assert (part.places, part.queues, part.keys, part.blocked) == ((), (), frozenset(), {queue})
    assert f"hash slot {slot} is half moved away from node {node}" in part.findings[0].seen
    assert Masters(calls, KEYS, [queue]).away().blocked, "also where the yard has no other queue"
    [found] = watch.look().findings
    assert (found.code, found.severity) == ("half_moved", "error")
    assert found.seen == (
        f"hash slot {slot} is half moved away from node {node}; {queue} starts nothing and takes no new jobs"
    )
    assert found.remedy.endswith(f"`valkey-cli --cluster fix {node}`.")
    with pytest.raises(HashSlotHalfMoved) as refused:
        QueueOperations(calls, KEYS.queue(queue)).enqueue([Entry("refused", b"{}")])
    assert (refused.value.slot, refused.value.node, refused.value.outcome) == (slot, node, "refused")
    QueueOperations(calls, KEYS.queue("c")).enqueue([Entry("taken", b"{}")])

    move.end()
    QueueOperations(calls, KEYS.queue(queue)).enqueue([Entry("taken", b"{}")])
    assert watch.look().findings == ()
    assert Masters(calls, KEYS, [queue, "c"]).away() == NOTHING_AWAY
    assert queue in Masters(calls, KEYS, [queue]).queues_by_place()[move.target.address]


def test_a_plain_command_follows_a_key_to_its_new_node(
    cluster: ClusterUnderTest, calls: RedisCalls, move: Move
) -> None:
    client = connect(cluster.url, profile="quick")

    assert client.hlen(move.key) == calls.command("HLEN", move.key)
    assert client.hlen(KEYS.queue(move.queue).dead) == 0
    client.close()


def test_a_move_that_ends_within_a_second_is_no_finding(cluster: ClusterUnderTest, move: Move) -> None:
    calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0, refused_s=0.1)  # as the rooms'
    ending = threading.Timer(0.4, lambda: list(move.steps))
    began_s = time.monotonic()
    ending.start()

    found = Masters(calls, KEYS, [move.queue, "c"]).away()
    took_s = time.monotonic() - began_s
    ending.join()
    calls.close()

    assert found == NOTHING_AWAY
    assert took_s > 0.3, "the move had ended before the probe"


@pytest.mark.parametrize("lost", ["its node", "its side of the move"])
def test_a_move_whose_target_is_lost_leaves_the_slot_half_moved(tmp_path: Path, lost: str) -> None:
    queue, key = "half", KEYS.queue("half").bodies
    with ClusterUnderTest(tmp_path / "cluster") as cluster:
        source = cluster.owner(key)
        target = cluster.another(source)
        calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)
        watch = Watch(calls, KEYS, [queue], production=True)
        watch.generation.prepare()
        next(cluster.keys_moved_one_by_one(key, target))
        if lost == "its node":
            target.kill()
        else:
            target.ask("CLUSTER", "SETSLOT", slot_of(key), "STABLE")

        asked = commands_of(source)
        part = Masters(calls, KEYS, [queue]).away()
        asked = commands_of(source) - asked
        with pytest.raises(HashSlotHalfMoved) as refused:
            QueueOperations(calls, KEYS.queue(queue)).enqueue([Entry("refused", b"{}")])
        told = {found.code: found.seen for found in watch.look().findings}
        calls.close()

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


def test_what_is_not_seen_while_the_broker_is_away_is_not_resolved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ClusterUnderTest(tmp_path / "cluster", masters=1) as cluster:
        [node] = cluster.masters
        calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)
        watch = Watch(calls, KEYS, ["c"], production=True)
        watch.generation.prepare()
        node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert [found.code for found in watch.look().findings] == ["evicting"]
        node.kill()
        with caplog.at_level(logging.INFO, logger="switchyard.broker"):
            watch.look()
            assert not [message for message in caplog.messages if "resolved" in message]
            node.start()
            wait_for(lambda: not watch.look().findings, what="the node, restarted with noeviction, is well")
        calls.close()

    assert [message for message in caplog.messages if "resolved: the server does not answer" in message]
