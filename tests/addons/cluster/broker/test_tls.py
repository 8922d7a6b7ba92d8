"""A cluster with TLS alone (``rediss+cluster://``), and with users of least privilege, each as its own."""

import contextlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from switchyard.broker.admin.purge import purges, set_aside
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis import acl
from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.wiring import build_yard
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.chaos.databases import environment
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue
from tests.chaos.pools import MANAGE, Pools, RunningPool
from tests.chaos.server import server_binary
from tests.tls import Authority
from tests.waiting import wait_for

# On three different nodes, as the slots of these names are.
QUEUES = ("b", "c", "a")
REFUSED = r"NOPERM|can't run this command|no permission"


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def secure(authority, tmp_path_factory) -> Iterator[ClusterUnderTest]:
    folder = tmp_path_factory.mktemp("secure")
    with ClusterUnderTest(folder, binary=server_binary("redis-server"), authority=authority) as cluster:
        yield cluster


@pytest.fixture
def url(secure, authority) -> str:
    return f"{secure.url}?ssl_ca_certs={authority.file}"


@pytest.fixture
def calls(url) -> Iterator[RedisCalls]:
    with contextlib.closing(calls_on(connect(url))) as calls:
        yield calls


def test_every_node_is_asked_over_tls_and_a_moved_slot_is_followed(secure, calls, url):
    keys = [Keys("tls").queue(queue).token for queue in QUEUES]
    home = secure.owner(keys[0])

    answers = calls.pipeline([("SET", key, number) for number, key in enumerate(keys)])
    secure.move_one_by_one(keys[0], secure.another(home))
    moved = calls.command("GET", keys[0])

    assert answers == [b"OK"] * 3
    assert len({calls.place_of(key) for key in keys[1:]}) == 2
    assert moved == b"0"
    assert calls.place_of(keys[0]) != home.address
    with dict(calls.client.servers())[calls.place_of(keys[0])] as node:  # as the doctor asks one
        assert node.get(keys[0]) == b"0"
    secure.move_one_by_one(keys[0], home)


def test_a_certificate_of_an_unknown_authority_is_refused(secure, tmp_path):
    another = Authority(tmp_path / "another")
    said = "CERTIFICATE_VERIFY_FAILED"

    for query in ("", f"?ssl_ca_certs={another.file}"):
        calls = calls_on(connect(f"{secure.url}{query}", profile="quick"), budget_s=0.3)
        with pytest.raises(BrokerUnavailable, match=said):
            calls.command("PING")
        with pytest.raises(BrokerUnavailable, match=said):
            calls.pipeline([("GET", Keys().queue("a").token)])
        with pytest.raises(BrokerUnavailable, match=said):
            calls.places()
        calls.close()


def test_workers_run_jobs_of_every_node_over_tls(url, run_worker):
    queues = tuple(Queue(name, objective_ms=None, soft_limit_ms=5_000, hard_limit_ms=9_000) for name in QUEUES)
    yard = Yard(queues, (Pool("all", "threads", QUEUES, processes=1, slots=2, shared_retries=True),))
    broker = build_yard(yard, connect(url), Keys(f"test-{uuid.uuid4().hex[:8]}"))
    ran: list[str] = []
    lanes = [lane for queue in QUEUES for lane in (queue, f"{queue}-retry")]
    actors = [dramatiq.actor(ran.append, actor_name=f"run_{name}", queue_name=name, broker=broker) for name in QUEUES]

    with run_worker(*lanes, broker=broker):
        for actor, queue in zip(actors, QUEUES, strict=True):
            actor.send(queue)
        wait_for(lambda: len(ran) == len(QUEUES), what="a job of each queue ran")

    assert sorted(ran) == sorted(QUEUES)


class Guarded(ClusterUnderTest):
    """Masters that speak TLS alone, and know the users of the rendered file; the password of each is its name."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        super().__init__(folder / "nodes", binary=server_binary("redis-server"), authority=self.authority)

    def start(self) -> None:
        super().start()
        for line in acl.render(acl.roles([Keys().queue(QUEUE)])).splitlines():
            _, name, *rules = re.findall(r"\([^)]*\)|\S+", line)  # what is in parentheses is one rule
            for node in self.nodes:
                node.ask("ACL", "SETUSER", name, "on", f">{name}", *(rule for rule in rules if rule != "off"))

    def url_of(self, role: str) -> str:
        login = f"switchyard-{role}:switchyard-{role}@"
        return f"{self.url.replace('://', f'://{login}')}?ssl_ca_certs={self.authority.file}"

    def refusals(self) -> list[Any]:
        return [entry for node in self.nodes for entry in node.ask("ACL", "LOG")]


@pytest.fixture
def cluster(tmp_path) -> Iterator[Guarded]:
    """An empty cluster of three masters: keys of other tests would be of the same prefix."""
    with Guarded(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def room(cluster) -> Iterator[RedisCalls]:
    with contextlib.closing(calls_on(connect(cluster.url_of("room")))) as calls:
        yield calls


@pytest.fixture
def pools(cluster, tmp_path, process_environment, monkeypatch) -> Iterator[Pools]:
    """Starts processes of a yard with one queue, on this test's database; the test itself is a producer."""
    monkeypatch.setenv("DATABASE_URL", process_environment["DATABASE_URL"])
    with (
        contextlib.closing(Ledger(tmp_path / "ledger")) as ledger,
        Pools(tmp_path, ledger, cluster.url_of("producer"), "load") as pools,
    ):
        yield pools


@pytest.fixture
def manage(cluster, pools, tmp_path) -> Callable[..., str]:
    """Run ``manage.py`` as the room, and return what it printed."""

    def run(*arguments: str) -> str:
        own = environment(tmp_path, cluster.url_of("room"), os.environ["DATABASE_URL"], "tests.chaos.yard.settings")
        done = subprocess.run(
            [*MANAGE, *arguments], env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        assert not re.search(REFUSED, done.stdout), done.stdout
        return done.stdout

    return run


@pytest.fixture
def scheduler(cluster, pools) -> RunningPool:
    process = pools.start("runscheduler", url=cluster.url_of("scheduler"), ready=False)
    process.wait_for_log("leading")
    return process


@pytest.mark.django_db(transaction=True)
def test_a_scheduler_drops_what_was_purged_and_ends_an_undo_that_was_begun(cluster, room, pools, scheduler):
    family = QueueOperations(room, Keys().queue(QUEUE))
    ledger = Ledger(scheduler.log_path.with_name("unused"))

    for job in ("dropped", "late"):
        enqueue(pools.broker, ledger, job, delay_ms=600_000 if job == "late" else None)
    set_aside(family, "drop", by="test", undo_ms=0)
    wait_for(lambda: not purges(family), what="what was purged is dropped")
    enqueue(pools.broker, ledger, "kept")
    set_aside(family, "undo", by="test")
    room.call(script("claim_purge"), [family.keys.purges], ["undo", "undo"])  # by an operator's process that ended then
    wait_for(lambda: not purges(family), what="what was set aside is put back")
    ledger.close()

    assert room.command("HKEYS", family.keys.bodies) == [b"kept"]
    assert cluster.refusals() == []
    assert not re.search(REFUSED, scheduler.log())


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_processes_of_each_role_run_jobs_and_go_on_after_a_master_was_emptied(
    cluster, pools, scheduler, manage, tmp_path
):
    worker = pools.start("runpool", "work", url=cluster.url_of("worker"))
    retries = pools.start("runpool", "retries", url=cluster.url_of("worker"))
    history = pools.start("runhistory", url=cluster.url_of("scheduler"), ready=False)
    ledger = Ledger(tmp_path / "ledger")

    def run(*jobs: str) -> None:
        for job in jobs:
            assert enqueue(pools.broker, ledger, job, delay_ms=50 if job.endswith("3") else None)
        wait_for(lambda: all(ledger.of("completed", job) for job in jobs), what=f"{jobs[0]} and others ran")

    run(*(f"job-{uuid.uuid4().hex[:8]}{number}" for number in range(10)))  # one fails once, one is delayed
    assert "paused" in manage("queues", "pause", QUEUE, "--reason", "a test")
    enqueue(pools.broker, ledger, "cancelled")
    enqueue(pools.broker, ledger, "back")
    assert "cancelled" in manage("jobs", "cancel", "cancelled")
    assert "2 messages" in manage("queues", "purge", QUEUE, "--yes", "--reason", "a test")
    assert "2 messages" in manage("queues", "purge", QUEUE, "--undo")
    assert "resumed" in manage("queues", "resume", QUEUE)
    wait_for(lambda: ledger.of("completed", "back"), what="what was put back ran")
    bare = cluster.another(cluster.owner(Keys().queue(QUEUE).token))
    bare.ask("FLUSHALL")
    worker.wait_for_log(f"paused, it fetches nothing: .*node {bare.address} lost keys")
    assert "accepted" in manage("broker", "accept")
    wait_for(lambda: worker.log().count("pool work: ready") > 1, what="the pool fetches again")
    run("afterwards")
    found = json.loads(manage("doctor", "--json"))["findings"]
    ledger.close()

    assert "this process writes the history" in history.log()
    assert not ledger.of("started", "cancelled")
    assert [finding for finding in found if finding["severity"] == "error"] == []
    assert [finding["code"] for finding in found if finding["code"] in ("unverified", "unreadable", "no_marker")] == []
    assert cluster.refusals() == []
    for process in (scheduler, worker, retries, history):
        assert not re.search(REFUSED, process.log()), process.log()
