"""Real pools deliver to an endpoint that goes down, and the machine dies that has the probe: all of it arrives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apps.webhooks import publishing, services
from apps.webhooks.models import Delivery, DeliveryState
from tests.factories.endpoints import listening_endpoint
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600), pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def endpoint():
    with listening_endpoint() as made:
        yield made


@pytest.fixture
def start(process_environment, tmp_path, endpoint):
    """Start the pools of deliveries in a process group of their own, and wait until they are ready."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*pools: str) -> subprocess.Popen[bytes]:
        log = tmp_path / f"{len(started)}.log"
        environment = process_environment | {"SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": endpoint.address}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "runpools", *pools], cwd=ROOT, env=environment, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
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


def test_a_probe_that_dies_with_its_machine_is_replaced_by_another_supervisor(facilities, start, endpoint):
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
