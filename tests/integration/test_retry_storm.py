"""A receiver that fails hundreds of deliveries delays no others: retries wait in their own lane, for their own pool."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from apps.webhooks import publishing, services
from apps.webhooks.models import Attempt, Delivery, DeliveryState
from switchyard.broker.interface import Facilities
from switchyard.broker.redis.connections import connect
from switchyard.broker.shapes import LaneStats
from switchyard.workers.shared.fork import die_with_parent
from tests.waiting import wait_for

ENDPOINTS = 20
ROOT = Path(__file__).resolve().parents[2]
BODIES = "switchyard:{webhook}:bodies"
LIVE = re.compile(r"(?:[LR]PUSH|ZADD) switchyard:\{webhook\}:webhook(?:\.high|\.low|\.due)? (.*)", re.IGNORECASE)
BODY = re.compile(r"(\S+) (\{.*?)(?= \S+ \{|$)")
ATTEMPTS = re.compile(r'"attempts": ?[1-9]')


@pytest.fixture
def start(process_environment: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    """Start Python with arguments, wait for ``ready`` in what it prints, and return what follows on that line."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, ready: str, **environment: str) -> str:
        log = tmp_path / f"{len(started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**process_environment, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(15),
            )
        started.append(process)
        wait_for(lambda: ready in log.read_text(), 90, what=f"{ready!r} in {log.read_text()[-2000:]}")
        return log.read_text().partition(ready)[2].partition("\n")[0].strip()

    yield run
    for process in reversed(started):
        process.terminate()
    for process in started:
        process.wait(timeout=60)


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("events", "healthy"), [(12, 20), (100, 60)])
def test_new_deliveries_start_within_the_objective_while_many_fail(
    facilities: Facilities, start: Any, valkey_url: str, events: int, healthy: int
) -> None:
    receiver = start("-m", "apps.webhooks.receiver", "--port", "0", ready="ready: ").rstrip("/")
    allowed = receiver.removeprefix("http://")
    watch = LiveQueueWatch(valkey_url)
    start("manage.py", "runpools", "webhook", "webhook-retry", ready="pools: all ready",
          SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES=allowed, SWITCHYARD_LOG_FORMAT="json")  # fmt: skip
    for number in range(ENDPOINTS):
        _endpoint(f"{receiver}/broken?{number}", "order.broken")
    _endpoint(f"{receiver}/healthy", "order.fine")

    for number in range(events):
        publishing.publish("owner", "order.broken", {"order": number})
    stats = facilities.transport.stats
    wait_for(lambda: _at_rest(stats("webhook").live), 90, what="every first attempt was made")
    storm = stats("webhook")
    waits_ms = []
    for number in range(healthy):
        waits_ms.append(_wait_ms(facilities, publishing.publish("owner", "order.fine", {"order": number})[0]))

    failed = Attempt.objects.filter(delivery__event__type="order.broken", status_code=500)
    delivered = Delivery.objects.filter(event__type="order.fine", state=DeliveryState.SUCCEEDED)
    wait_for(lambda: delivered.count() == healthy, what="every healthy delivery arrived")
    retrying = storm.retry.waiting + storm.retry.scheduled + storm.retry.running
    objective_ms = settings.SWITCHYARD.topology.queue_of("webhook").objective_ms
    wait_for(lambda: failed.count() > ENDPOINTS * events, what="the receiver is asked again")
    assert retrying + storm.dead > ENDPOINTS * events * 0.9, "there is no storm"
    assert stats("webhook").retry.waiting + stats("webhook").retry.scheduled > 0, "the storm was over too soon"
    assert max(waits_ms) <= objective_ms, sorted(waits_ms)[-5:]
    assert watch.messages_seen >= ENDPOINTS * events + healthy
    assert watch.retries_seen == 0, "the live queue held a retry"


class LiveQueueWatch:
    """Reads everything that is ever put into the live queue, from the server's own account of its commands."""

    def __init__(self, url: str) -> None:
        self.messages_seen = 0
        self.retries_seen = 0
        self._retries: set[str] = set()  # ids whose body tells of an attempt
        self._client: redis.Redis = connect(url, profile="blocking")
        self._monitor = self._client.monitor().__enter__()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                command = str(self._monitor.next_command()["command"])
            except (redis.RedisError, ValueError, OSError):
                return
            if command.upper().startswith(f"HSET {BODIES}".upper()):
                for id_, body in BODY.findall(command[len(f"HSET {BODIES} ") :]):
                    (self._retries.add if ATTEMPTS.search(body) else self._retries.discard)(id_)
            elif found := LIVE.match(command):
                ids = {word for word in found[1].split() if not word.isdigit()}
                self.messages_seen += len(ids)
                self.retries_seen += len(ids & self._retries)


def _at_rest(lane: LaneStats) -> bool:
    return lane.waiting == lane.running == 0


def _endpoint(url: str, event: str) -> None:
    services.create_endpoint("owner", url, [event])


def _wait_ms(facilities: Facilities, job_id: str) -> int:
    def started() -> Any:
        record = facilities.records.read(job_id)
        return record if record and record.started_at else None

    record = wait_for(started, what="a healthy delivery's start")
    return int(record.started_at - record.enqueued_at)
