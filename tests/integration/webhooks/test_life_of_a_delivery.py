"""Deliveries through real workers: diverted, given up, requeued, redelivered."""

from __future__ import annotations

import dataclasses
import socket

import dramatiq
import pytest
from django.conf import settings as django_settings

from apps.webhooks import publishing
from apps.webhooks.actors import deliver_webhook
from apps.webhooks.models import Delivery, DeliveryState, Endpoint
from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.topology import RetryPolicy
from tests.factories.letters import requeue
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
LANES = ("webhook", "webhook-retry")


@pytest.fixture
def hurried(yard_broker):
    """A broker on which retries follow at once, with the actor on it."""
    yard = django_settings.SWITCHYARD.topology
    queues = tuple(dataclasses.replace(queue, retry=RetryPolicy(delays_ms=(1, 1, 2, 3, 5))) for queue in yard.queues)
    broker = yard_broker(dataclasses.replace(yard, queues=queues))
    actor = dramatiq.actor(
        deliver_webhook.fn, actor_name=deliver_webhook.actor_name, queue_name=deliver_webhook.queue_name, broker=broker
    )
    return broker, actor


def state_of(delivery: Delivery) -> str:
    delivery.refresh_from_db()
    return delivery.state


def test_a_name_that_leads_inside_ends_its_job_as_permanent(make_delivery, hurried, run_worker, monkeypatch):
    broker, actor = hurried
    delivery, ask = make_delivery("https://inside.example/"), socket.getaddrinfo
    led = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **b: led if "inside" in host else ask(host, *a, **b))

    with run_worker(*LANES, broker=broker):
        message = actor.send(delivery_id=str(delivery.pk))
        letter = wait_for(lambda: facilities_of(broker).transport.find_dead_letter("webhook", message.message_id))

    assert (letter.reason, letter.attempts, state_of(delivery)) == ("permanent", 1, DeliveryState.DEAD)


def test_a_flaky_endpoint_is_reached_at_the_third_attempt(receiver, make_delivery, hurried, run_worker):
    broker, actor = hurried
    delivery = make_delivery(receiver.url + "flaky")

    with run_worker(*LANES, broker=broker):
        actor.send(delivery_id=str(delivery.pk))
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)

    assert [attempt.status_code for attempt in delivery.attempts.order_by("number")] == [500, 500, 200]
    assert {arrived["id"] for arrived in receiver.log} == {delivery.webhook_id}


def test_a_broken_endpoint_is_given_up_after_six_attempts_and_reached_after_a_requeue(
    receiver, make_delivery, hurried, run_worker
):
    broker, actor = hurried
    transport = facilities_of(broker).transport
    delivery = make_delivery(receiver.url + "broken")

    with run_worker(*LANES, broker=broker):
        message = actor.send(delivery_id=str(delivery.pk))
        letter = wait_for(lambda: transport.find_dead_letter("webhook", message.message_id))
        state = state_of(delivery)
        seen = len(receiver.log)
        Endpoint.objects.update(url=receiver.url + "healthy")
        requeue(transport, "webhook", message.message_id)
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)

    assert (letter.reason, letter.exception, letter.attempts) == ("exhausted", "DeliveryFailed", 6)
    assert (state, seen) == (DeliveryState.DEAD, 6)
    assert [attempt.status_code for attempt in delivery.attempts.order_by("number")] == [500] * 6 + [200]


def test_gone_is_dead_at_once(receiver, make_delivery, hurried, run_worker):
    broker, actor = hurried
    delivery = make_delivery(receiver.url + "gone")

    with run_worker(*LANES, broker=broker):
        message = actor.send(delivery_id=str(delivery.pk))
        letter = wait_for(lambda: facilities_of(broker).transport.find_dead_letter("webhook", message.message_id))

    assert (letter.reason, letter.attempts) == ("permanent", 1)
    assert len(receiver.log) == 1
    assert not Endpoint.objects.get().active


def test_a_redelivery_is_a_new_job_with_the_same_webhook_id(receiver, make_delivery, facilities, run_worker):
    delivery = make_delivery(receiver.url + "healthy")
    with run_worker(*LANES):
        first = publishing.redeliver([delivery.pk])
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)
        second = publishing.redeliver([delivery.pk])
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)

    assert first != second
    assert delivery.job_id == second[0]
    assert [arrived["id"] for arrived in receiver.log] == [delivery.webhook_id] * 2
    assert delivery.attempts.count() == 2


def test_a_redelivery_cancels_what_the_old_job_still_planned(receiver, make_delivery, facilities, run_worker):
    delivery = make_delivery(receiver.url + "healthy")
    (old,) = publishing.redeliver([delivery.pk])

    (new,) = publishing.redeliver([delivery.pk])

    assert facilities.records.read(old).state == "cancelled"
    assert facilities.records.read(new).state == "queued"
    with run_worker(*LANES):
        wait_for(lambda: state_of(delivery) == DeliveryState.SUCCEEDED)
        wait_for(lambda: facilities.transport.stats("webhook").live.waiting == 0)
    assert len(receiver.log) == 1
