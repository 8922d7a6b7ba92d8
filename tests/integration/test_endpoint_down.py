"""Real pools deliver to an endpoint that goes down and returns: few attempts, no others held up, all of it arrives."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apps.webhooks import publishing, services
from apps.webhooks.models import Delivery, DeliveryState
from switchyard.broker.interface import Facilities
from tests.factories.endpoints import Endpoint, listening_endpoint
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600), pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening_endpoint() as made:
        yield made


@pytest.fixture
def start(process_environment: dict[str, str], tmp_path: Path, endpoint: Endpoint) -> Iterator[Start]:
    """Start the pools of deliveries in a process group of their own, and wait until they are ready."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*pools: str) -> subprocess.Popen[bytes]:
        log = tmp_path / f"{len(started)}.log"
        environment = process_environment | {"SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": endpoint.address}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "runpools", *pools],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        wait_for(lambda: "pools: all ready" in log.read_text(), 90, what=log.read_text()[-2000:])
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


def deliver(count: int, event: str) -> None:
    for number in range(count):
        publishing.publish("owner", event, {"order": number})


def arrived(event: str) -> int:
    return Delivery.objects.filter(event__type=event, state=DeliveryState.SUCCEEDED).count()


def waits_ms(facilities: Facilities, count: int) -> list[float]:
    """Deliver one after the other to the endpoint that works; return how long each took."""
    took = []
    for number in range(count):
        began_s = time.monotonic()
        [job_id] = publishing.publish("owner", "fine", {"order": number})
        wait_for(lambda job_id=job_id: facilities.records.states([job_id]) == ["succeeded"])  # type: ignore[misc]
        took.append((time.monotonic() - began_s) * 1000)
    return took


@pytest.mark.parametrize(("count", "down_s", "others"), [(5_000, 60, 200)])
def test_an_endpoint_that_is_down_is_asked_seldom_and_gets_all_when_it_returns(
    facilities: Facilities, start: Start, endpoint: Endpoint, count: int, down_s: int, others: int
) -> None:
    services.create_endpoint("owner", endpoint.url("broken"), ["broken"])
    services.create_endpoint("owner", endpoint.url("fine"), ["fine"])
    endpoint.down.set()
    start("webhook", "webhook-retry")
    before = waits_ms(facilities, others)
    began_s = time.monotonic()
    deliver(count, "broken")
    wait_for(lambda: facilities.transport.stats("webhook").live.waiting == 0)
    during = waits_ms(facilities, others)
    wait_for(lambda: time.monotonic() - began_s >= down_s, 90)

    asked = endpoint.asked.count("/broken")
    endpoint.down.clear()
    back_s = time.monotonic()
    wait_for(lambda: facilities.transport.stats("webhook").live.scheduled == 0, what="all of it is due")
    due_s = time.monotonic() - back_s
    wait_for(lambda: arrived("broken") == count, 300, what="all of it arrives")

    print(
        f"{count} deliveries: {asked} attempts while down; after its return all due in {due_s:.1f} s, and there in "
        f"{time.monotonic() - back_s:.1f} s, as fast as this machine delivers; "
        f"others ms at the median and at most: {statistics.median(before):.1f}, {max(before):.1f} before, "
        f"{statistics.median(during):.1f}, {max(during):.1f} during"
    )
    assert asked < 200
    assert endpoint.asked.count("/broken") < count + 220
    assert facilities.transport.stats("webhook").dead == 0


def test_a_probe_that_dies_with_its_machine_is_replaced_by_another_supervisor(
    facilities: Facilities, start: Start, endpoint: Endpoint
) -> None:
    services.create_endpoint("owner", endpoint.url("broken"), ["broken"])
    endpoint.down.set()
    first = start("webhook", "webhook-retry")
    deliver(100, "broken")
    [circuit] = wait_for(lambda: facilities.transport.stats("webhook").circuits)
    endpoint.go.clear()  # the next probe hangs
    wait_for(lambda: [each.pause.probe for each in facilities.transport.stats("webhook").circuits] > [""])

    start("webhook", "webhook-retry")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    endpoint.down.clear()
    endpoint.go.set()

    wait_for(lambda: arrived("broken") == 100, 120)
    assert facilities.transport.stats("webhook").circuits == ()
    assert circuit.pause.dependency == "webhook"
