"""Actors of the webhooks product may run again after a crash: a delivery that succeeded is not sent again."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.webhooks import publishing, services
from apps.webhooks.actors import deliver_in_order, deliver_webhook, purge_delivery_attempts
from apps.webhooks.models import Attempt, Delivery, DeliveryState
from switchyard.testing import redelivered, run_enqueued
from tests.integration.webhooks.conftest import OWNER

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker")]


def test_every_actor_of_webhooks_can_be_repeated(receiver, make_delivery):
    delivery, old = make_delivery(receiver.url + "healthy"), make_delivery(receiver.url + "healthy")
    Attempt.objects.create(delivery=old, number=1, at=timezone.now() - timedelta(days=31), duration_ms=1)
    deliver_webhook.send(str(delivery.pk))
    purge_delivery_attempts.send()

    ordered = make_delivery(receiver.url + "healthy")
    deliver_in_order.send(str(ordered.pk), str(ordered.endpoint_id))

    assert redelivered() == ["deliver_in_order", "deliver_webhook", "purge_delivery_attempts"]
    assert sorted(arrived["id"] for arrived in receiver.log) == sorted([delivery.webhook_id, ordered.webhook_id])
    assert not Attempt.objects.filter(delivery=old).exists()


def test_an_endpoint_gets_its_events_in_their_order_where_it_wants_that(receiver, switchyard_broker):
    services.create_endpoint(OWNER, receiver.url + "flaky", ["order.paid"], in_order=True)
    for number in range(3):
        publishing.publish(OWNER, "order.paid", {"number": number})

    run_enqueued(raises=False, delayed=True)

    sent = Delivery.objects.order_by("created_at")
    assert [state for (state,) in sent.values_list("state")] == [DeliveryState.SUCCEEDED] * 3
    arrivals = [arrived["id"] for arrived in receiver.log]
    assert list(dict.fromkeys(arrivals)) == [delivery.webhook_id for delivery in sent]
    assert len(arrivals) > 3
    assert arrivals == sorted(arrivals, key=arrivals.index)  # no other one between the attempts of one
