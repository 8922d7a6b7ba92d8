"""A commit and its messages are one, and a POST that is repeated with its key does its work once, whoever is killed."""

import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from django.utils import timezone

from apps.images.models import Picture, Thumbnail
from apps.webhooks.models import Delivery, Endpoint, Event
from project.config import BASE_DIR
from switchyard.api.models import IdempotentRequest
from switchyard.api.tokens import create_token
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.conf import declared_yard
from switchyard.embedded.server import EmbeddedServer, free_port
from switchyard.history.queries import were_enqueued
from switchyard.outbox import relay, rows
from switchyard.outbox.models import OutboxRow
from switchyard.outbox.relay import Relay
from switchyard.outbox.sends import CommitSends
from switchyard.wiring import build_yard
from tests.chaos.databases import status_of
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.server import ServerUnderTest
from tests.environment import POSTGRES
from tests.factories.brokers import the_global_broker
from tests.factories.callers import api_user
from tests.integration.outbox.conftest import YARD, actor_on, waiting
from tests.processes import is_alive
from tests.table_locks import writes_held
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
# Each is a place of a function, and whether the process dies before or after it.
OF_SENDER = {"after the row": (rows, "add", "after"), "after the commit": (CommitSends, "flush", "before")}
OF_BOTH = {
    "before the send": (RedisBroker, "put", "before"), "after the send": (RedisBroker, "put", "after"),
    "before the row is deleted": (rows, "delete", "before"), "after the row is deleted": (rows, "delete", "after"),
}  # fmt: skip
PROCESSES = 1_000
RUNS_MS = 30
ENDPOINTS = 2
AT_ONCE = 50
Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def server(tmp_path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "valkey").start()
    yield server
    server.stop()


@pytest.fixture
def greet(server, monkeypatch) -> Iterator[dramatiq.Actor[..., Any]]:
    """An actor on a server and a broker of its own, whose rows are relayed at any age."""
    monkeypatch.setattr(relay, "LEFT_TO_SENDER_MS", -1_000)
    broker = build_yard(YARD, connect(server.url), Keys("outbox"), sends="outbox")
    with the_global_broker(broker):
        yield actor_on(broker, "hurry", "urgent")
    broker.close()


def in_process(act: Callable[[], object]) -> None:
    connections.close_all()
    if (pid := os.fork()) == 0:
        try:
            act()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def dying(gap: tuple[Any, str, str] | None, act: Callable[[], object]) -> Callable[[], object]:
    """Return an act that is killed at a gap; with ``None`` it is not."""
    if gap is None:
        return act
    owner, name, when = gap
    before = getattr(owner, name)

    def die(*args: Any, **options: Any) -> Any:
        if when == "after":
            before(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        setattr(owner, name, die)
        act()

    return run


def after_ms(delay_ms: float, act: Callable[[], object]) -> Callable[[], object]:
    """Return an act that is killed after a time, between any two of its instructions."""

    def run() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, delay_ms / 1_000)
        act()

    return run


def commit(greet: dramatiq.Actor[..., Any], name: str) -> Callable[[], None]:
    def act() -> None:
        with transaction.atomic():
            Group.objects.create(name=name)
            greet.send(name)

    return act


def relay_once() -> None:
    """Relay as a process that leads at once."""
    found = Relay(were_enqueued)
    found._leadership.acquire_or_renew = lambda: True  # type: ignore[method-assign]
    found.step()


def committed() -> list[str]:
    return sorted(Group.objects.exclude(name__startswith="Switchyard").values_list("name", flat=True))


def assert_sent_once(greet: dramatiq.Actor[..., Any]) -> None:
    relay_once()
    assert OutboxRow.objects.count() == 0
    assert sorted(waiting(greet.broker, "urgent")) == committed()


@pytest.mark.parametrize("gap", [*OF_SENDER, *OF_BOTH])
def test_a_sender_that_is_killed_loses_and_doubles_nothing(greet, gap):
    in_process(dying((OF_SENDER | OF_BOTH)[gap], commit(greet, "Ada")))

    assert committed() == ([] if gap == "after the row" else ["Ada"])
    assert_sent_once(greet)


@pytest.mark.parametrize("gap", OF_BOTH)
def test_a_relay_that_is_killed_loses_and_doubles_nothing(greet, gap):
    in_process(dying(OF_SENDER["after the commit"], commit(greet, "Ada")))

    in_process(dying(OF_BOTH[gap], relay_once))

    assert_sent_once(greet)


def test_a_commit_outlasts_its_broker(greet, server):
    commit(greet, "before")()
    server.stop()
    commit(greet, "meanwhile")()
    relay_once()
    during = committed(), OutboxRow.objects.count()
    server.start()

    assert during == (["before", "meanwhile"], 1)
    assert_sent_once(greet)


@contextmanager
def database_away() -> Iterator[None]:
    """Stop PostgreSQL, or hold the lock of SQLite, so that nothing else writes."""
    if POSTGRES:
        POSTGRES.stop()
        yield
        POSTGRES.start()
        return
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield


def database_killed(act: Callable[[], object], after_s: float) -> None:
    """Kill PostgreSQL while a process acts, and start it on what it had written."""
    assert POSTGRES is not None
    killed = threading.Timer(after_s, POSTGRES.kill)
    killed.start()
    in_process(act)
    killed.join()
    POSTGRES.start()


def impatient(act: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        if not POSTGRES:
            connection.settings_dict["OPTIONS"] |= {"timeout": 0.02}  # of the next connection
        act()

    return run


@pytest.mark.long
def test_a_thousand_kills(greet, server):
    seed = int(os.environ.get("OUTBOX_SEED") or random.SystemRandom().randrange(2**32))
    print(f"OUTBOX_SEED={seed}")
    draw = random.Random(seed)

    for number in range(PROCESSES):
        sends = draw.random() < 0.7
        act = commit(greet, f"{number}") if sends else relay_once
        gaps = [*(OF_SENDER | OF_BOTH if sends else OF_BOTH).values()]
        act = dying(draw.choice(gaps), act) if draw.random() < 0.7 else after_ms(draw.uniform(1, RUNS_MS), act)
        trouble = draw.random()
        if trouble < 0.02:
            server.stop()
            in_process(act)
            server.start()
        elif trouble < 0.05:
            connections.close_all()
            with database_away():
                in_process(impatient(act))
        elif trouble < 0.08 and POSTGRES:
            connections.close_all()
            database_killed(act, draw.uniform(0, 0.03))
        else:
            in_process(act)

    assert len(committed()) > PROCESSES / 4
    assert_sent_once(greet)


class Web:
    """The project's web in a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "project.asgi:application", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        wait_for(lambda: status_of(f"http://127.0.0.1:{self.port}/healthz") == 200, what="the web to answer")

    def relay(self) -> subprocess.Popen[bytes]:
        """Start what sends the rows of the outbox that the web could not."""
        command = [sys.executable, "manage.py", "switchyard", "runhistory"]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment, cwd=BASE_DIR, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process is not None and is_alive(self.process.pid):
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(60)

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Return status and body of the answer; status 0 when there was none."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=40) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except (OSError, http.client.HTTPException):  # killed before the answer, or in the middle of its body
            return 0, {}


@dataclass
class Bench:
    """A web behind a proxy to a server, and a worker that notes what it runs."""

    web: Web
    server: ServerUnderTest
    proxy: FaultProxy
    headers: dict[str, str]
    ran: list[tuple[str, str]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def prepare(self, count: int) -> None:
        self.requests = []
        for number in range(count):
            kind, body = (
                ("/thumbnails", {"url": f"https://93.184.216.34/{number}.png", "width": 10, "height": 10}),
                ("/webhooks/events", {"event": "a", "payload": {"number": number}}),
                ("/exports", {"dataset": "customers", "format": "csv"}),
            )[number % 3]
            self.requests.append((str(uuid.uuid4()), kind, body))

    def send_all(self) -> list[Answer]:
        def send(request: tuple[str, str, dict[str, Any]]) -> Answer:
            key, path, body = request
            return self.web.post(path, body, self.headers | {"Idempotency-Key": key})

        with ThreadPoolExecutor(AT_ONCE) as callers:
            self.answers = list(callers.map(send, self.requests))
        return self.answers

    def repeat_until_accepted(self) -> None:
        """Repeat the requests until each has its final answer; the second time it must be the same."""
        wait_for(lambda: all(status == 202 for status, _ in self.send_all()), 120, what="all to be accepted")
        assert self.answers == self.send_all()

    def broker(self) -> RedisBroker:
        """Return a broker whose actors note the work, on the server itself."""
        broker = build_yard(declared_yard(), connect(self.server.url), Keys())
        self._declare(broker, "make_thumbnail", "thumbnail_id")
        self._declare(broker, "deliver_webhook", "delivery_id")
        self._declare(broker, "export_dataset", "dataset")
        return broker

    def _declare(self, broker: RedisBroker, name: str, argument: str) -> None:
        def run(**kwargs: Any) -> None:
            self.ran.append((name, str(kwargs[argument])))

        queue = dramatiq.get_broker().get_actor(name).queue_name
        dramatiq.actor(run, broker=broker, actor_name=name, queue_name=queue)

    def forget_finished_ids(self) -> None:
        """Let the server forget what it remembers of finished messages for 10 minutes."""
        for key in self.server.admin.scan_iter("*done*"):
            self.server.admin.delete(key)


@pytest.fixture
def bench(tmp_path, process_environment) -> Iterator[Bench]:
    owner = api_user("ada")
    _, plain = create_token(owner=owner, scopes=["submit"], name="test")
    for number in range(ENDPOINTS):
        Endpoint.objects.create(owner_key=f"user:{owner.pk}", url=f"https://93.184.216.34/{number}", events=["a"])
    with ServerUnderTest(tmp_path / "server") as server, FaultProxy(server.port) as proxy:
        server.sync_each_write()
        environment = process_environment | {"SWITCHYARD_BROKER_URL": proxy.url, "SWITCHYARD_STATE_DIR": str(tmp_path)}
        web = Web(environment, tmp_path / "web.log")
        web.start()
        relay = web.relay()
        try:
            headers = {"Authorization": f"Bearer {plain}", "Content-Type": "application/json"}
            yield Bench(web, server, proxy, headers)
        finally:
            web.kill()
            relay.kill()
            relay.wait(60)


def sent_between(begin: Callable[[Bench], object], end: Callable[[Bench], object]) -> Callable[[Bench, int], object]:
    """Return a fault that lasts while all requests are sent."""
    return lambda bench, count: (begin(bench), bench.send_all(), end(bench))


def heal(bench: Bench) -> None:
    bench.proxy.pass_()


@contextmanager
def half_claimed(bench: Bench, count: int) -> Iterator[None]:
    """Enter the block when half of the requests that are under way are claimed, and no answer comes."""
    before = IdempotentRequest.objects.count()
    bench.proxy.stall("to_client")
    thread = threading.Thread(target=bench.send_all)
    thread.start()
    claimed = before + min(count, AT_ONCE) // 2
    wait_for(lambda: IdempotentRequest.objects.count() >= claimed, what="the requests to be claimed")
    yield
    thread.join(120)
    assert not thread.is_alive()


def killed_server(bench: Bench, count: int) -> None:
    with half_claimed(bench, count):
        bench.server.kill()
    bench.proxy.pass_()
    bench.server.restart()


def killed_web_before_the_answer(bench: Bench, count: int) -> None:
    with half_claimed(bench, count):
        bench.web.kill()
    bench.proxy.pass_()
    a_minute_passes()
    bench.web.start()


def killed_web_before_it_settles(bench: Bench, count: int) -> None:
    """Kill the web when the jobs are enqueued and the database does not let it store its answers."""
    with half_claimed(bench, count), writes_held(IdempotentRequest, drop=True):
        heard = bench.proxy.replies_count
        bench.proxy.pass_()
        wait_for(lambda: bench.proxy.replies_count > heard, what="the web to hear that a job is enqueued")
        bench.web.kill()
    a_minute_passes()
    bench.web.start()


def a_minute_passes() -> None:
    """Let the claims of requests lapse whose process was killed."""
    IdempotentRequest.objects.filter(status=None).update(repeated_at=timezone.now() - timedelta(minutes=2))


FAULTS: dict[str, Callable[[Bench, int], object]] = {
    "requests are lost": sent_between(lambda bench: bench.proxy.blackhole(), heal),
    "requests come after the answer 503": sent_between(lambda bench: bench.proxy.stall("to_server"), heal),
    "answers come late": sent_between(lambda bench: bench.proxy.stall("to_client"), heal),
    "answers are lost": sent_between(lambda bench: bench.proxy.drop_reply(1_000_000), heal),
    "the server is stopped": sent_between(lambda bench: bench.server.stop(), lambda bench: bench.server.cont()),
    "the server is killed": killed_server,
    "the server is away": sent_between(lambda bench: bench.server.kill(), lambda bench: bench.server.restart()),
    "the web is killed before the answer": killed_web_before_the_answer,
    "the web is killed before it settles": killed_web_before_it_settles,
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [9, pytest.param(114, marks=pytest.mark.long)])
def test_a_request_repeated_with_its_key_does_its_work_once_whatever_was_lost(bench, run_worker, count):
    """Break each step between send and answer; run what arrived; forget the finished ids; repeat."""
    broker, done = bench.broker(), 0
    try:
        for name, fault in FAULTS.items():
            bench.prepare(count)
            fault(bench, count)
            first = Counter(status for status, _ in bench.answers)
            assert first.keys() <= {0, 202, 429, 503}, (name, first)  # 429: many requests of one token run
            for status, document in bench.answers:
                assert status != 503 or document["outcome"] in ("unknown", "not_enqueued"), document
            with run_worker(broker=broker):
                drain(broker)
                bench.forget_finished_ids()
                bench.repeat_until_accepted()
                drain(broker)
            done += count
            print(f"{name}: {dict(first)} at first, then all accepted")
            assert_once(bench, done)
    finally:
        broker.close()
    print(f"{done} requests, {len(bench.ran)} jobs, each once")


def drain(broker: RedisBroker) -> None:
    wait_for(lambda: not OutboxRow.objects.exists(), 120, what="the outbox to be empty")
    for queue in ("images", "webhook", "slow"):
        broker.join(queue, timeout=120_000)


def assert_once(bench: Bench, done: int) -> None:
    third = done // 3
    assert (Picture.objects.count(), Thumbnail.objects.count()) == (third, third)
    assert (Event.objects.count(), Delivery.objects.count()) == (third, third * ENDPOINTS)
    wait_for(lambda: len(bench.ran) >= (2 + ENDPOINTS) * third, what="the jobs to run")
    assert Counter(bench.ran) == Counter(
        [("make_thumbnail", str(pk)) for pk in Thumbnail.objects.values_list("pk", flat=True)]
        + [("deliver_webhook", str(pk)) for pk in Delivery.objects.values_list("pk", flat=True)]
        + [("export_dataset", "customers")] * third
    )
