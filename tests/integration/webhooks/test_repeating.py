"""Actors of the webhooks product may run again after a crash: a delivery that succeeded is not sent again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.webhooks.actors import deliver_webhook, purge_delivery_attempts
from apps.webhooks.models import Attempt, Delivery
from apps.webhooks.receiver import Receiver
from switchyard.testing import redelivered

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker")]


def test_every_actor_of_webhooks_can_be_repeated(receiver: Receiver, make_delivery: Callable[..., Delivery]) -> None:
    delivery, old = make_delivery(receiver.url + "healthy"), make_delivery(receiver.url + "healthy")
    Attempt.objects.create(delivery=old, number=1, at=timezone.now() - timedelta(days=31), duration_ms=1)
    deliver_webhook.send(str(delivery.pk))
    purge_delivery_attempts.send()

    assert redelivered() == ["deliver_webhook", "purge_delivery_attempts"]
    assert [arrived["id"] for arrived in receiver.log] == [delivery.webhook_id]
    assert not Attempt.objects.filter(delivery=old).exists()
