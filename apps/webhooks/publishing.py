"""Publishing of events, and redelivery."""

import uuid
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.db import transaction

from apps.webhooks.actors import deliver_in_order, deliver_webhook
from apps.webhooks.models import Delivery, DeliveryState, Endpoint, Event
from apps.webhooks.signing import canonical
from switchyard.api.request_jobs import is_repeated_request, row_id_of_request
from switchyard.jobs.services import enqueue_on_commit, request_cancel


@transaction.atomic
def publish(owner_key: str, event_type: str, payload: dict[str, Any]) -> list[str]:
    """Record an event, deliver it to every subscribed endpoint of its owner after the commit, and return the jobs' ids.

    Raises:
        BrokerUnavailable: event and deliveries are stored, but not all are enqueued; redeliver them from the admin.
    """
    event_id = row_id_of_request("event")
    if event_id is not None and is_repeated_request() and Event.objects.filter(pk=event_id).exists():
        recorded = (
            Delivery.objects.select_related("endpoint")
            .filter(event_id=event_id)
            .order_by("endpoint__created_at", "endpoint_id")
        )
        return [_enqueue(delivery, owner_key, job_id=delivery.job_id) for delivery in recorded]
    event = Event.objects.create(
        pk=event_id or uuid.uuid4(), owner_key=owner_key, type=event_type, payload=canonical(payload)
    )
    endpoints = Endpoint.objects.filter(owner_key=owner_key, active=True).order_by("created_at", "id")
    # Only PostgreSQL can search lists in JSON; an owner has a handful of endpoints.
    deliveries = [Delivery(event=event, endpoint=endpoint) for endpoint in endpoints if event_type in endpoint.events]
    for delivery in deliveries:
        delivery.job_id = _enqueue(delivery, owner_key)
    Delivery.objects.bulk_create(deliveries, batch_size=100)
    return [delivery.job_id for delivery in deliveries]


@transaction.atomic
def redeliver(delivery_ids: Iterable[uuid.UUID]) -> list[str]:
    """Enqueue deliveries again, succeeded ones too, each in a new job, and return the new jobs' ids.

    Old jobs that have not started are cancelled.
    """
    jobs = []
    chosen = (
        Delivery.objects.select_related("event", "endpoint")
        .select_for_update(of=("self",))
        .filter(pk__in=list(delivery_ids))
    )
    for delivery in chosen.order_by("created_at"):
        transaction.on_commit(partial(request_cancel, delivery.job_id))
        delivery.job_id = _enqueue(delivery, delivery.event.owner_key)
        delivery.state = DeliveryState.PENDING
        delivery.finished_at = None
        delivery.save(update_fields=["job_id", "state", "finished_at"])
        jobs.append(delivery.job_id)
    return jobs


def _enqueue(delivery: Delivery, owner_key: str, *, job_id: str | None = None) -> str:
    kwargs = {"delivery_id": str(delivery.pk), "endpoint_id": str(delivery.endpoint_id)}
    actor = deliver_in_order if delivery.endpoint.in_order else deliver_webhook
    return enqueue_on_commit(actor, owner=owner_key, job_id=job_id, kwargs=kwargs)
