"""Reads of the webhooks product."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from apps.webhooks.models import Delivery, Endpoint


def subscribed(owner_key: str, event_type: str) -> list[Endpoint]:
    """Return an owner's active endpoints that subscribe to a type of event, the oldest first."""
    endpoints = Endpoint.objects.filter(owner_key=owner_key, active=True).order_by("created_at", "id")
    # Only PostgreSQL can search lists in JSON; an owner has a handful of endpoints.
    return [endpoint for endpoint in endpoints if event_type in endpoint.events]


def find_delivery(delivery_id: str) -> Delivery | None:
    """Return a delivery with its event and endpoint, or ``None`` when the id is unknown or invalid."""
    try:
        return Delivery.objects.select_related("event", "endpoint").filter(pk=delivery_id).first()
    except ValidationError:
        return None
