"""Actors of the webhooks product."""

from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage
from periodiq import cron

from apps.webhooks import delivering, services
from switchyard.conf import declared_yard
from switchyard.middleware.outcomes import attempt
from switchyard.middleware.retries import max_retries_of

QUEUE = "webhook"
# Options of both ways of delivery.
SHARED: dict[str, Any] = {
    "search": ("delivery_id",), "depends_on": "webhook per endpoint_id", "outage": (delivering.DeliveryFailed,),
}  # fmt: skip


@dramatiq.actor(queue_name=QUEUE, **SHARED)
def deliver_webhook(delivery_id: str, endpoint_id: str = "") -> None:
    """Deliver one event to one endpoint. Safe to repeat: receivers recognise a repetition by its ``webhook-id``.

    Deliveries to an endpoint that is down wait for it; those sent by releases without ``endpoint_id`` do not.
    """
    delivering.deliver(delivery_id, is_last=_is_last())


@dramatiq.actor(queue_name=QUEUE, ordered_by="endpoint_id", **SHARED)
def deliver_in_order(delivery_id: str, endpoint_id: str) -> None:
    """Deliver one event to an endpoint that wants them in their order, after all that were sent before it have ended.

    Safe to repeat, as ``deliver_webhook``, whose circuits it shares.
    """
    delivering.deliver(delivery_id, is_last=_is_last())


@dramatiq.actor(queue_name="default", periodic=cron("40 3 * * *"))
def purge_delivery_attempts() -> None:
    """Delete records of attempts older than 30 days. Safe to repeat: deleted rows stay deleted."""
    services.purge_attempts()


def _is_last() -> bool:
    message = CurrentMessage.get_current_message()
    if message is None:
        return False
    return attempt(message) > max_retries_of(message, deliver_webhook, declared_yard().queue_of(QUEUE).retry)
