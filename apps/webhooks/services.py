"""Writes of the webhooks product: endpoints, and outcomes of attempts."""

import uuid
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from apps.outbound.http import Response
from apps.webhooks.models import EXCERPT_BYTES, Attempt, Delivery, DeliveryState, Endpoint
from apps.webhooks.signing import new_secret
from switchyard.api.request_jobs import is_repeated_request, row_id_of_request

ATTEMPTS_KEPT = timedelta(days=30)
PURGE_AT_ONCE = 1_000
# Of an owner. Each event becomes a job for each of them, also where all have the same URL of somebody else.
MOST_ENDPOINTS = 100


class TooManyEndpoints(Exception):
    """An owner has as many enabled endpoints as one may have."""


def create_endpoint(owner_key: str, url: str, events: Sequence[str], *, in_order: bool = False) -> tuple[Endpoint, str]:
    """Register an endpoint and return it with its secret. The caller has validated the URL.

    Raises:
        TooManyEndpoints: its owner has ``MOST_ENDPOINTS`` that are enabled.
    """
    endpoint_id = row_id_of_request("endpoint")
    if endpoint_id is not None and is_repeated_request():
        known = Endpoint.objects.filter(pk=endpoint_id).first()
        if known is not None:
            return known, known.secret
    if Endpoint.objects.filter(owner_key=owner_key, active=True).count() >= MOST_ENDPOINTS:
        fact = f"{MOST_ENDPOINTS} endpoints are enabled for this token's owner, which is the most"
        raise TooManyEndpoints(f"{fact}; have one that is not needed disabled in the admin")
    secret = new_secret()
    endpoint = Endpoint.objects.create(
        pk=endpoint_id or uuid.uuid4(),
        owner_key=owner_key,
        url=url,
        events=list(events),
        secret=secret,
        in_order=in_order,
    )
    return endpoint, secret


def enable(endpoint_id: uuid.UUID) -> bool:
    """Enable an endpoint; return ``False`` if it was enabled."""
    return bool(Endpoint.objects.filter(pk=endpoint_id, active=False).update(active=True, disabled_reason=""))


def disable(endpoint_id: uuid.UUID, reason: str) -> bool:
    """Disable an endpoint, so that pending deliveries are skipped; return ``False`` if it was disabled."""
    changed = Endpoint.objects.filter(pk=endpoint_id, active=True).update(active=False, disabled_reason=reason[:200])
    return bool(changed)


def skip(delivery_id: uuid.UUID) -> None:
    Delivery.objects.filter(pk=delivery_id).update(state=DeliveryState.SKIPPED, finished_at=timezone.now())


@transaction.atomic
def record_attempt(
    delivery_id: uuid.UUID,
    state: DeliveryState,
    *,
    duration_ms: int,
    response: Response | None,
    error: str = "",
    disable_reason: str = "",
) -> bool:
    """Record an attempt and its consequences; return ``False`` if the delivery was deleted meanwhile.

    A ``disable_reason`` disables the endpoint.
    """
    # Two runs of one delivery, after the loss of a worker, must not use the same number.
    delivery = Delivery.objects.select_for_update().filter(pk=delivery_id).first()
    if delivery is None:
        return False
    now = timezone.now()
    status_code = None if response is None else response.status
    delivery.attempts_count += 1
    delivery.last_attempt_at = now
    delivery.last_status_code = status_code
    if delivery.state != DeliveryState.SUCCEEDED:  # a success stays, whatever the outcome of a second run
        delivery.state = state
        delivery.finished_at = None if state == DeliveryState.RETRYING else now
    delivery.save(update_fields=["attempts_count", "last_attempt_at", "last_status_code", "state", "finished_at"])
    Attempt.objects.create(
        delivery=delivery,
        number=delivery.attempts_count,
        status_code=status_code,
        duration_ms=duration_ms,
        response_excerpt="" if response is None else excerpt_of(response.body),
        error=error,
        at=now,
    )
    if disable_reason:
        disable(delivery.endpoint_id, disable_reason)
    return True


def excerpt_of(response: bytes) -> str:
    """Return the beginning of a response as text that every database can store, at most 4 KiB in UTF-8."""
    text = response[:EXCERPT_BYTES].decode(errors="replace").replace("\0", "\ufffd")
    return text.encode()[:EXCERPT_BYTES].decode(errors="ignore")


def purge_attempts() -> int:
    """Delete attempts older than 30 days in batches of 1,000; return how many."""
    before = timezone.now() - ATTEMPTS_KEPT
    deleted = 0
    while doomed := list(Attempt.objects.filter(at__lt=before).values_list("pk", flat=True)[:PURGE_AT_ONCE]):
        deleted += Attempt.objects.filter(pk__in=doomed).delete()[0]
    return deleted
