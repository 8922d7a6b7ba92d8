"""A POST that was answered 503, or not at all, and is repeated with its key does its work once."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
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
from switchyard.outbox.models import OutboxRow
from switchyard.wiring import build_yard
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.server import ServerUnderTest
from tests.factories.callers import api_user
from tests.processes import is_alive
from tests.table_locks import writes_held
from tests.waiting import wait_for

ENDPOINTS = 2
AT_ONCE = 50
Answer = tuple[int, dict[str, Any]]
pytestmark = pytest.mark.django_db(transaction=True)


class Web:
    """The project's web in a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "project.asgi:application", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        wait_for(self._answers, what="the web to answer")

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

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, http.client.HTTPException):
            return False


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
        """Make new requests: thumbnails, events and exports in turn."""
        self.requests = []
        for number in range(count):
            kind, body = (
                ("/thumbnails", {"url": f"https://93.184.216.34/{number}.png", "width": 10, "height": 10}),
                ("/webhooks/events", {"event": "a", "payload": {"number": number}}),
                ("/exports", {"dataset": "customers", "format": "csv"}),
            )[number % 3]
            self.requests.append((str(uuid.uuid4()), kind, body))

    def send_all(self) -> list[Answer]:
        """Send every request once, and return the answers in order."""

        def send(request: tuple[str, str, dict[str, Any]]) -> Answer:
            key, path, body = request
            return self.web.post(path, body, self.headers | {"Idempotency-Key": key})

        with ThreadPoolExecutor(AT_ONCE) as callers:
            self.answers = list(callers.map(send, self.requests))
        return self.answers

    def repeat_until_accepted(self) -> None:
        """Repeat the requests until each has its final answer; the second time it must be the same."""
        until_s = time.monotonic() + 120
        while not all(status == 202 for status, _ in self.send_all()):
            assert time.monotonic() < until_s, Counter(status for status, _ in self.answers)
        final = self.answers
        assert self.send_all() == final

    def broker(self) -> RedisBroker:
        """Return a broker whose actors note the work, on the server itself."""
        broker = build_yard(declared_yard(), connect(self.server.url), Keys())
        for name, argument in (("make_thumbnail", "thumbnail_id"), ("deliver_webhook", "delivery_id")):
            self._declare(broker, name, argument)
        self._declare(broker, "export_dataset", "dataset")
        return broker

    def _declare(self, broker: RedisBroker, name: str, argument: str) -> None:
        declared = dramatiq.get_broker().get_actor(name)

        def run(**kwargs: Any) -> None:
            self.ran.append((name, str(kwargs[argument])))

        dramatiq.actor(run, broker=broker, actor_name=name, queue_name=declared.queue_name)

    def forget_finished_ids(self) -> None:
        """Let the server forget what it remembers of finished messages for 10 minutes."""
        for key in self.server.admin.scan_iter("*"):
            if re.search(rb"done", key if isinstance(key, bytes) else key.encode()):
                self.server.admin.delete(key)


@pytest.fixture
def bench(tmp_path: Path, process_environment: dict[str, str]) -> Iterator[Bench]:
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


def sent_between(begin: Callable[[Bench], object], end: Callable[[Bench], object]) -> Callable[[Bench, int], None]:
    """Return a fault that lasts while all requests are sent."""

    def fault(bench: Bench, count: int) -> None:
        begin(bench)
        bench.send_all()
        end(bench)

    return fault


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
    """Kill the server while requests are under way."""
    with half_claimed(bench, count):
        bench.server.kill()
    bench.proxy.pass_()
    bench.server.restart()


def killed_web_before_the_answer(bench: Bench, count: int) -> None:
    """Kill the web while it waits for the server's answer."""
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


FAULTS: dict[str, Callable[[Bench, int], None]] = {
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


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(9, marks=pytest.mark.timeout(400)),
        pytest.param(114, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_a_request_repeated_with_its_key_does_its_work_once_whatever_was_lost(
    bench: Bench, run_worker: Any, count: int
) -> None:
    """Break each step between send and answer; run what arrived; forget the finished ids; repeat."""
    broker = bench.broker()
    done = 0
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
    """Assert that every request left its rows once, and every job ran once."""
    third = done // 3
    assert (Picture.objects.count(), Thumbnail.objects.count()) == (third, third)
    assert (Event.objects.count(), Delivery.objects.count()) == (third, third * ENDPOINTS)
    wait_for(lambda: len(bench.ran) >= (2 + ENDPOINTS) * third, what="the jobs to run")
    ran = Counter(bench.ran)
    expected = Counter(
        [("make_thumbnail", str(pk)) for pk in Thumbnail.objects.values_list("pk", flat=True)]
        + [("deliver_webhook", str(pk)) for pk in Delivery.objects.values_list("pk", flat=True)]
        + [("export_dataset", "customers")] * third
    )
    assert ran == expected
