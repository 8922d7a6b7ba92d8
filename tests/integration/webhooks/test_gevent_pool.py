"""The real pool: one process of greenlets, in which endpoints that hang delay no other delivery."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apps.webhooks import publishing
from apps.webhooks.models import Attempt, Delivery, DeliveryState
from tests.integration.outbound.listener import dripping, listening
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]
HANGING = 50
HEALTHY = 40


@pytest.mark.django_db(transaction=True)
def test_fifty_endpoints_that_drip_do_not_delay_a_healthy_one(
    receiver, make_delivery, facilities, process_environment, tmp_path
):
    with listening(dripping(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n", every_s=0.5)) as slow:
        allowed = f"127.0.0.1:{slow.port} 127.0.0.1:{receiver.server_address[1]}"
        hanging = [make_delivery(slow.url) for _ in range(HANGING)]
        healthy = [make_delivery(receiver.url + "healthy") for _ in range(HEALTHY)]
        with (tmp_path / "pool.log").open("wb") as log:
            pool = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "runpool", "webhook"],
                env=process_environment | {"SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": allowed},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(lambda: b"ready" in (tmp_path / "pool.log").read_bytes(), 60, what="the pool")
            publishing.redeliver(delivery.pk for delivery in hanging)
            wait_for(lambda: slow.accepted == HANGING, 60, what="every slow delivery to hang")
            publishing.redeliver(delivery.pk for delivery in healthy)
            succeeded = Delivery.objects.filter(state=DeliveryState.SUCCEEDED)
            wait_for(lambda: succeeded.count() == HEALTHY, 60, what="the healthy deliveries")
            none_given_up = not Attempt.objects.filter(delivery__in=hanging).exists()
        finally:
            os.killpg(pool.pid, signal.SIGKILL)
            pool.wait(30)

    durations_ms = sorted(Attempt.objects.values_list("duration_ms", flat=True))
    assert none_given_up
    assert durations_ms[int(HEALTHY * 0.95) - 1] < 8_000, "behind the slow ones they would take their 10 s"
