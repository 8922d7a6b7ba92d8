"""Reads of the webhooks product."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from apps.product.webhooks.models import Delivery, Endpoint


def subscribed(owner_key: str, event_type: str) -> list[Endpoint]:
    """Return an owner's active endpoints that want a type of event, the oldest first."""
    endpoints = Endpoint.objects.filter(owner_key=owner_key, active=True).order_by("created_at", "id")
    # Lists in JSON can be searched by the database on PostgreSQL only; an owner has a handful of endpoints.
    return [endpoint for endpoint in endpoints if event_type in endpoint.events]


def find_delivery(delivery_id: str) -> Delivery | None:
    """Return a delivery with its event and endpoint, or ``None``: no such id, or no id at all."""
    try:
        return Delivery.objects.select_related("event", "endpoint").filter(pk=delivery_id).first()
    except ValidationError:
        return None
