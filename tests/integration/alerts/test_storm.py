"""A thousand dead letters of one cause, from real workers to a real receiver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from switchyard.alerts import services
from switchyard.alerts.models import Alert
from switchyard.broker.interface import Facilities
from tests.integration.alerts.conftest import Receiver
from tests.integration.alerts.test_dispatch import configured
from tests.waiting import wait_for


@pytest.mark.django_db(transaction=True)
def test_a_thousand_dead_letters_are_a_handful_of_messages(
    facilities: Facilities, run_worker: Callable[..., Any], receiver: Receiver
) -> None:
    @dramatiq.actor(actor_name="storm", queue_name="default", max_retries=0)
    def storm(number: int) -> None:
        raise LookupError(f"number {number}")

    for number in range(1_000):
        storm.send(number)

    with configured(receiver), run_worker("default"):
        wait_for(lambda: services.dispatch_due() and receiver.bodies, what="the first message")
        assert receiver.bodies[0]["count"] < 1_000, "the first leaves while the storm goes on"
        wait_for(lambda: facilities.transport.stats("default").dead == 1_000)
        services.dispatch_due()

    del dramatiq.get_broker().actors["storm"]
    assert len(receiver.bodies) <= 5
    assert Alert.objects.get().title == "storm gave up: LookupError"
