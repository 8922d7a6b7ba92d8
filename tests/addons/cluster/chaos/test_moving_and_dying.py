"""A cluster under load: slots that move and masters that die lose nothing, leave other queues alone, keep locks."""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Self

import dramatiq
import pytest

from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.wiring import build_yard
from switchyard.workers.child.main import FAILOVER_PAUSE_S
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.chaos.held_locks import BUSY, HELD, held_locks
from tests.waiting import wait_for

# Names whose hash slots are on three different masters, in this order.
QUEUES = ("b", "c", "a")
RATE = 200
# Of a queue beside one whose master is dead, which is away for seconds: a moment of its own is no more than a few.
BESIDE = 50
# A queue that was away sends no burst of what it owes.
CAUGHT_UP_S = 0.2
JOIN_MS = 30_000
long = pytest.mark.long


class Load:
    """Messages that are sent to every queue at a steady rate, run in this process, and timed.

    Args:
        rate: Messages a second, all queues together.
    """

    def __init__(self, broker: RedisBroker, rate: int = RATE) -> None:
        self.sent: defaultdict[str, list[str]] = defaultdict(list)
        self.runs: defaultdict[str, list[float]] = defaultdict(list)
        self.delays_s: defaultdict[str, list[float]] = defaultdict(list)
        self._broker, self._pause_s = broker, len(QUEUES) / rate
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._actors = {queue: self._actor(queue) for queue in QUEUES}
        self._threads = [threading.Thread(target=self._send, args=(queue,), daemon=True) for queue in QUEUES]

    def _actor(self, queue: str) -> Any:
        def work(id_: str, sent_s: float) -> None:
            with self._lock:
                self.runs[id_].append(time.monotonic())
                self.delays_s[queue].append(time.monotonic() - sent_s)

        return dramatiq.actor(work, broker=self._broker, queue_name=queue, actor_name=f"work_{queue}")

    def _send(self, queue: str) -> None:
        due_s = time.monotonic()
        while not self._stopping.wait(max(due_s - time.monotonic(), 0)):
            due_s = max(due_s + self._pause_s, time.monotonic() - CAUGHT_UP_S)
            id_ = uuid.uuid4().hex
            message = self._actors[queue].message(id_, time.monotonic())
            while True:  # as a producer does: the same message again, which is there once
                try:
                    self._broker.enqueue(message)
                    break
                except BrokerError:
                    if self._stopping.wait(0.05):
                        break
            else:
                return
            self.sent[queue].append(id_)

    def __enter__(self) -> Self:
        self._began_s = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._lasted_s = time.monotonic() - self._began_s
        for thread in self._threads:
            thread.join(60)

    def done(self, queue: str) -> int:
        return len(self.delays_s[queue])

    def per_s(self) -> str:
        """Return the rate of each queue; one that was away has less."""
        return ", ".join(f"{queue} {len(self.sent[queue]) / self._lasted_s:.0f}/s" for queue in QUEUES)

    def lost(self, queues: Sequence[str] = QUEUES) -> list[str]:
        return [id_ for queue in queues for id_ in self.sent[queue] if id_ not in self.runs]

    def wait_for_more(self, queue: str, more: int = 20) -> None:
        before = self.done(queue)
        wait_for(lambda: self.done(queue) >= before + more, what=f"{more} more of {queue} run")

    def starts(self, queue: str, since_s: float) -> list[float]:
        """Return when messages of a queue began to run after a moment, in order."""
        ids = set(self.sent[queue])
        return sorted(at_s for id_, times in self.runs.items() if id_ in ids for at_s in times if at_s > since_s)

    def longest_pause(self, queue: str, since_s: float) -> tuple[float, float]:
        """Return the beginning and the end of the longest time without a start of a queue."""
        return max(pairwise([since_s, *self.starts(queue, since_s)]), key=lambda pause: pause[1] - pause[0])

    def started_within(self, queue: str, pause: tuple[float, float]) -> int:
        return sum(pause[0] < at_s < pause[1] for at_s in self.starts(queue, pause[0]))


@pytest.fixture
def run(run_worker) -> Callable[[ClusterUnderTest], Any]:
    """Run a yard on a cluster, under load: ``with run(cluster) as load: …``."""

    class Running:
        def __init__(self, cluster: ClusterUnderTest) -> None:
            queues = tuple(Queue(name, objective_ms=None, soft_limit_ms=5_000, hard_limit_ms=9_000) for name in QUEUES)
            yard = Yard(queues, (Pool("all", "threads", QUEUES, processes=1, slots=4, shared_retries=True),))
            self.keys = Keys(f"test-{uuid.uuid4().hex[:8]}")
            self.certain: Sequence[str] = QUEUES
            self.broker = build_yard(yard, connect(cluster.url), self.keys)
            self.load = Load(self.broker)
            lanes = [lane for queue in QUEUES for lane in (queue, f"{queue}-retry")]
            self._worker: Any = run_worker(*lanes, broker=self.broker)

        def __enter__(self) -> Load:
            assert self._worker.__enter__().consumers
            self.load.__enter__()
            return self.load

        def __exit__(self, *error: Any) -> None:
            self.load.__exit__(*error)
            try:
                if error[0] is None:
                    wait_for(lambda: not self.load.lost(self.certain), what="everything ran")
                    for queue in QUEUES:  # what a master's death left waits longer: it is not lost
                        self.broker.join(queue, timeout=JOIN_MS)
            finally:
                self._worker.__exit__(*error)

    return Running


@pytest.fixture
def own_cluster(tmp_path) -> Iterator[ClusterUnderTest]:
    with ClusterUnderTest(tmp_path / "cluster", node_timeout_ms=5_000) as cluster:
        yield cluster


@pytest.mark.parametrize("way", ["at once", pytest.param("one by one", marks=long)])
def test_a_slot_that_moves_under_load_loses_and_doubles_nothing(run, own_cluster, way):
    cluster, running = own_cluster, run(own_cluster)
    bodies = running.keys.queue("b").bodies
    with running as load:
        load.wait_for_more("b")
        for _ in range(2):  # and back
            target = cluster.another(cluster.owner(bodies))
            cluster.move_at_once(bodies, target) if way == "at once" else cluster.move_one_by_one(bodies, target)
            load.wait_for_more("b")

    delays_s = {queue: max(load.delays_s[queue]) for queue in QUEUES}
    print(f"{way}: {sum(map(len, load.sent.values()))} sent, {load.per_s()}, longest delays {delays_s}")
    assert load.lost() == []
    assert [id_ for id_, times in load.runs.items() if len(times) > 1] == []


@long
def test_a_master_that_dies_stops_its_own_queues_only(run, tmp_path, monkeypatch):
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", FAILOVER_PAUSE_S)  # as in a pool
    with ClusterUnderTest(tmp_path / "cluster", replicas=1) as cluster:
        running = run(cluster)
        running.certain = ("a", "b")  # a replica may lack what its master answered last
        with running as load:
            load.wait_for_more("c")
            dead = cluster.owner("{c}")
            killed_s = time.monotonic()
            dead.kill()
            load.wait_for_more("c")
            load.wait_for_more("c")

    pause = load.longest_pause("c", killed_s)
    beside = {queue: load.started_within(queue, pause) for queue in ("a", "b")}
    print(
        f"{load.per_s()}; c paused {pause[1] - pause[0]:.2f} s, meanwhile {beside} ran;"
        f" {len(load.lost())} of {len(load.sent['c'])} lost with the master"
    )
    assert load.lost(("a", "b")) == []
    assert min(beside.values()) >= BESIDE
    assert len(load.lost()) <= RATE / len(QUEUES)  # of one second


@long
def test_a_planned_failover_loses_nothing(run, tmp_path):
    with ClusterUnderTest(tmp_path / "cluster", replicas=1) as cluster:
        running = run(cluster)
        with running as load:
            load.wait_for_more("c")
            began_s = time.monotonic()
            for _ in range(2):  # and back
                former = cluster.owner("{c}")
                replica = cluster.replica_of(former)
                replica.ask("CLUSTER", "FAILOVER")
                wait_for(lambda replica=replica: cluster.owner("{c}") is replica, what="the replica is the master")
                load.wait_for_more("c")
                wait_for(lambda former=former: b"master_link_status:up" in former.ask("INFO", "replication"))
            load.wait_for_more("c")

    pauses = {queue: load.longest_pause(queue, began_s) for queue in QUEUES}
    pauses_s = {queue: end - begin for queue, (begin, end) in pauses.items()}
    twice = [id_ for id_, times in load.runs.items() if len(times) > 1]
    sent = sum(map(len, load.sent.values()))
    print(f"planned: {sent} sent, {load.per_s()}, longest pauses {pauses_s}, {len(twice)} ran twice")
    assert load.lost() == []


def test_a_lock_has_one_holder_while_its_slot_moves(cluster, run_worker):
    cluster.flush()
    with held_locks(cluster.url, run_worker) as locks:
        for name in (HELD, BUSY):
            key = locks.broker.keys.task_lock(name)[0]
            locks.wait_for_more()
            home = cluster.owner(key)
            cluster.move_one_by_one(key, cluster.another(home))
            locks.wait_for_more()
            cluster.move_at_once(key, home)
        locks.wait_for_more()
        locks.check_task()

    locks.check_turns()


def test_a_lock_has_one_holder_when_its_master_dies(tmp_path, run_worker):
    with ClusterUnderTest(tmp_path / "cluster", replicas=1) as cluster, held_locks(cluster.url, run_worker) as locks:
        killed_s = []
        for name in (BUSY, HELD):
            locks.wait_for_more()
            killed_s.append(time.monotonic())
            cluster.owner(locks.broker.keys.task_lock(name)[0]).kill()
            locks.wait_for_more()
        locks.check_task()

    locks.check_turns(*killed_s)
