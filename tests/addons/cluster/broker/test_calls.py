"""Calls on a real cluster: each goes to its node, follows a slot that moves, and leaves the other nodes alone."""

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from switchyard.addons.cluster.hash_slots import HashSlotHalfMoved
from switchyard.batches.counting import count_batches
from switchyard.batches.services import batch
from switchyard.broker.admin.browse import pauses_in
from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue.administration import pause_actor, resume_actor
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls, call_together, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import ActorPause
from switchyard.broker.worker.prefetch import Wakeup
from switchyard.operations.findings.examine import broker_away
from switchyard.operations.findings.finding import FindingGroup
from switchyard.wiring import build_yard
from tests.addons.cluster.nodes import ClusterUnderTest, Node
from tests.chaos.server import server_binary
from tests.factories.brokers import the_global_broker
from tests.integration.batches.conftest import Actors, figures, two_queues, until
from tests.unit.documentation.pages import read
from tests.waiting import wait_for

KEYS = Keys("test")
# On three different nodes, as the slots of these names are.
QUEUES = ("b", "c", "a")


@pytest.fixture
def calls(cluster) -> Iterator[RedisCalls]:
    """The access to an emptied cluster."""
    cluster.flush()
    with contextlib.closing(calls_on(connect(cluster.url))) as calls:
        yield calls


def family(calls: RedisCalls, queue: str = "moving") -> QueueOperations:
    return QueueOperations(calls, KEYS.queue(queue))


def test_queues_are_on_several_nodes_and_work(calls):
    families = [family(calls, queue) for queue in QUEUES]
    for each in families:
        each.enqueue([Entry(f"m-{number}", b"body") for number in range(1_200)])
        each.join("child/live")

    fetched = [each.fetch("child/live", 2, request=1) for each in families]

    assert [[grant.lease.id for grant in found.grants] for found in fetched] == [[b"m-0", b"m-1"]] * 3
    assert len({calls.place_of(each.keys.bodies) for each in families}) == 3


def test_the_user_of_the_how_to_may_move_slots_as_a_whole(tmp_path):
    [line] = re.findall(r"^ +user replica on (.+syncslots)$", read("docs/how-to/tls-and-acl.md"), flags=re.MULTILINE)
    keys = Keys().queue("moving")
    with ClusterUnderTest(tmp_path, masters=2) as cluster:
        for node in cluster.masters:
            node.ask("ACL", "SETUSER", "replica", *f"on {line}".split())
            node.ask("CONFIG", "SET", "masteruser", "replica", "masterauth", "PASSWORD")
        calls = calls_on(connect(cluster.url))
        QueueOperations(calls, keys).enqueue([Entry(f"m-{number}", b"body") for number in range(1_200)])

        cluster.move_at_once(keys.bodies, cluster.another(cluster.owner(keys.bodies)))

        assert calls.command("HLEN", keys.bodies) == 1_200
        calls.close()


def test_a_pipeline_asks_every_node_and_keeps_the_order(calls):
    for number, queue in enumerate(QUEUES):
        calls.command("SET", KEYS.queue(queue).token, number)

    *tokens, now, wrong = calls.pipeline(
        [*(("GET", KEYS.queue(queue).token) for queue in QUEUES), ("TIME",), ("LLEN", KEYS.queue("a").token)],
        raise_errors=False,
    )

    assert tokens == [b"0", b"1", b"2"]
    assert len(now) == 2
    assert isinstance(wrong, BrokerRefused)


def test_an_operation_that_some_nodes_do_not_know_is_run_once_on_each(calls):
    operation = script("pause")
    calls.call(operation, [KEYS.queue("a").paused], [0, "me", "why"])

    batches = [([KEYS.queue(queue).paused], (0, "me", "why")) for queue in QUEUES]

    assert len(call_together(calls, operation, batches)) == 3
    assert calls.pipeline([("EXISTS", KEYS.queue(queue).paused) for queue in QUEUES]) == [1, 1, 1]


def test_a_stream_of_calls_visits_the_nodes_in_order(calls):
    for queue in QUEUES:
        family(calls, queue).enqueue([Entry(queue, b"body")])
    turns = [family(calls, queue).backlog_call() for queue in (*QUEUES, *QUEUES)]

    assert list(calls.stream(script("backlog"), turns)) == [calls.call(script("backlog"), *turn) for turn in turns]


def test_a_slot_that_was_moved_is_asked_at_its_new_node(cluster, calls):
    queue = family(calls)
    queue.enqueue([Entry("before", b"body")])
    target = cluster.another(cluster.owner(queue.keys.bodies))

    cluster.move_at_once(queue.keys.bodies, target)
    queue.enqueue([Entry("after", b"body")])
    queue.enqueue([Entry("before", b"again")])

    assert calls.place_of(queue.keys.bodies) == target.address
    assert calls.pipeline([("HLEN", queue.keys.bodies)]) == [2]


def test_a_slot_that_is_being_moved_makes_calls_wait_within_their_budget(cluster, calls):
    queue = family(calls)
    queue.enqueue([Entry("before", b"body")])
    steps = cluster.keys_moved_one_by_one(queue.keys.bodies, cluster.another(cluster.owner(queue.keys.bodies)))
    next(steps)
    began_s = time.monotonic()

    with pytest.raises(HashSlotHalfMoved, match=r"is half moved away from node .*valkey-cli --cluster fix") as refused:
        queue.enqueue([Entry("during", b"body")], budget_s=0.3)
    assert time.monotonic() - began_s > 0.1
    assert refused.value.outcome == "refused"
    # A key that is not there yet is asked for at the new node, a single key at the old one.
    assert calls.command("GET", queue.keys.refused) is None
    assert calls.pipeline([("GET", queue.keys.refused), ("HLEN", queue.keys.bodies)]) == [None, 1]
    with ThreadPoolExecutor() as threads:
        waited = threads.submit(queue.enqueue, [Entry("waited", b"body")])
        assert list(steps)
        assert waited.result(30) == ["waited"]
    assert calls.command("HLEN", queue.keys.bodies) == 2


def test_a_wait_for_the_wakeup_follows_its_slot(cluster, calls):
    queue = family(calls)
    wakeup = Wakeup(calls, queue.keys.wakeup("live"))
    wakeup.request()

    cluster.move_at_once(queue.keys.bodies, cluster.another(cluster.owner(queue.keys.bodies)))
    with pytest.raises(BrokerUnavailable, match="hash slot has moved"):
        wait_for(lambda: wakeup.wait(0.1))
    wakeup.request()
    queue.notify("live")

    assert wait_for(lambda: wakeup.wait(0.1))[0]
    wakeup.disconnect()


def test_a_fork_uses_connections_of_its_own(calls):
    calls.command("SET", KEYS.queue("a").token, 1)
    reading, writing = os.pipe()

    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, calls.command("GET", KEYS.queue("a").token))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reading, 10) == b"1"
    assert calls.command("GET", KEYS.queue("a").token) == b"1"
    os.close(reading)
    os.close(writing)


def test_a_cluster_that_is_away_is_refused_within_the_budget():
    calls = calls_on(connect("redis+cluster://127.0.0.1:1"), budget_s=0.5, refused_s=0.2)

    with pytest.raises(BrokerUnavailable) as refused:
        calls.command("GET", "k")
    with pytest.raises(BrokerUnavailable):
        calls.pipeline([("GET", "k")])
    with pytest.raises(BrokerUnavailable):
        calls.places()

    assert refused.value.outcome == "refused"


def test_nodes_that_were_never_joined_are_away_until_they_hold_slots(tmp_path, configure):
    node = Node(tmp_path / "node", server_binary("valkey-server"))
    node.start()
    configure(broker_url=f"redis+cluster://{node.address}")
    calls = calls_on(connect(f"redis+cluster://{node.address}"), budget_s=0.5, refused_s=0.2)
    try:
        with pytest.raises(BrokerUnavailable, match="cluster create") as refused:
            calls.places()
        with pytest.raises(BrokerUnavailable, match="cluster create"):
            calls.command("TIME")
        found = broker_away(FindingGroup("broker"), refused.value)
        assert (found.code, found.seen) == ("away", "no node of the cluster holds hash slots")

        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)

        wait_for(lambda: node.facts()["cluster_state"] == "ok", what="the node serves its slots")
        assert list(calls.places()) == [node.address]
        assert calls.command("TIME")
    finally:
        calls.close()
        node.kill()


def test_a_node_that_has_left_is_asked_for_nothing(cluster, tmp_path):
    left = Node(tmp_path / "left", server_binary("valkey-server"))
    left.start()
    calls = calls_on(connect(cluster.url.replace("//", f"//{left.address},", 1), profile="quick"), budget_s=1.0)
    try:
        assert calls.command("SET", "{a}x", "1") == b"OK"
        assert left.address not in calls.places()
    finally:
        calls.close()
        left.kill()


BODY = b'{"actor":"fan_out","sent_at":1}'


def test_queues_on_several_nodes_are_paused_and_resumed(calls):
    families = [QueueOperations(calls, Keys().queue(f"queue-{number}")) for number in range(6)]
    for family in families:
        family.join("me/live")
        family.enqueue([Entry("one", BODY), Entry("two", b'{"actor":"mail","sent_at":1}')])

    wanted = ActorPause(0, 0, 0, "fan_out", reason="it sends itself")
    assert all(pause_actor(family, wanted) for family in families)
    started = [[grant.lease.id for grant in family.fetch("me/live", 9, request=1).grants] for family in families]
    assert started == [[b"two"]] * 6
    assert [each.reason for each in pauses_in(families)] == ["it sends itself"]

    assert all(resume_actor(family, "fan_out") for family in families)
    started = [[grant.lease.id for grant in family.fetch("me/live", 9, request=2).grants] for family in families]
    assert started == [[b"one"]] * 6
    assert pauses_in(families) == []


@pytest.fixture
def broker(cluster) -> Iterator[RedisBroker]:
    cluster.flush()
    made = build_yard(two_queues(), connect(cluster.url), Keys(f"test-{uuid.uuid4().hex[:8]}"))
    with contextlib.closing(made), the_global_broker(made):
        yield made


@pytest.mark.django_db(transaction=True)
def test_members_on_several_nodes_are_counted(broker, run_worker):
    actors = Actors()
    actors.refused = {3}
    made = []
    for _ in range(5):
        with batch("import", **actors.callbacks()) as jobs:
            jobs.add(*(actors.work.message(number, adds=1) for number in range(4)), actors.other.message(9))
        made.append(jobs)
    calls = broker.switchyard.records.calls
    places = {calls.place_of(broker.keys.batch(jobs.id)) for jobs in made}
    with run_worker(broker=broker):
        until(count_batches, lambda: len(actors.called) == 10)

    assert len(places) > 1, "the batches are on several nodes"
    assert sorted(actors.called) == ["on_complete"] * 5 + ["on_failure"] * 5
    assert [figures(jobs) for jobs in made] == [("complete", 0, 7, 1, 0)] * 5
