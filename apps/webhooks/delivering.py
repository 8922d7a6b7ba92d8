"""One attempt of a delivery: sign, send, record the outcome, and decide on a retry."""

import re
import time
from datetime import datetime
from email.utils import parsedate_to_datetime

import structlog
from django.core.exceptions import ValidationError
from django.utils import timezone

from apps.outbound.addresses import read_url
from apps.outbound.errors import ForbiddenAddress, OutboundError
from apps.outbound.http import Response, send
from apps.webhooks import services, signing
from apps.webhooks.models import Delivery, DeliveryState
from switchyard.broker import clock
from switchyard.broker.errors import SwitchyardError
from switchyard.middleware.errors import PermanentFailure, RetryLater

DEADLINE_S = 10.0
MAX_RESPONSE_BYTES = 64 * 1024
GONE = 410
ASKS_TO_WAIT = (429, 503)
SERVER_FAILURE = 500
# Longest wait that an endpoint may ask for.
MAX_WAIT_S = 3_600.0
_SECONDS = re.compile(r"[0-9]{1,10}")

log = structlog.get_logger(__name__)


class NotDelivered(SwitchyardError):
    """An attempt was not answered with 2xx."""

    def __init__(self, host: str, fact: str) -> None:
        super().__init__(f"{host}: {fact}; only 2xx is success, see what the endpoint itself logged")


class DeliveryFailed(NotDelivered):
    """An attempt got no answer in time, or a failure of the endpoint itself (5xx)."""


class DeliveryRefused(NotDelivered):
    """An attempt got another answer that is not 2xx: the endpoint works."""


def deliver(delivery_id: str, *, is_last: bool) -> None:
    """Make one attempt, unless the delivery succeeded before or its endpoint is disabled.

    Args:
        is_last: No retry follows; affects only the recorded state.

    Raises:
        DeliveryFailed: no answer in time, or 5xx.
        DeliveryRefused: another answer that is not 2xx.
        RetryLater: the endpoint asks to wait.
        PermanentFailure: the endpoint is gone, its address is forbidden, or there is no such delivery.
    """
    try:
        delivery = Delivery.objects.select_related("event", "endpoint").filter(pk=delivery_id).first()
    except ValidationError:  # no UUID
        delivery = None
    if delivery is None:
        raise _no_such(delivery_id)
    if delivery.state == DeliveryState.SUCCEEDED:
        log.info("webhook_was_delivered_before", delivery_id=delivery_id)
        return
    if not delivery.endpoint.active:
        services.skip(delivery.pk)
        log.info("webhook_skipped", delivery_id=delivery_id, endpoint_id=str(delivery.endpoint_id))
        return
    response: Response | None = None
    failure: Exception | None
    disable_reason = ""
    started_s = time.monotonic()
    try:
        response = _send(delivery)
        failure, disable_reason = _judge(read_url(delivery.endpoint.url).host, response)
    except ForbiddenAddress as error:
        failure = PermanentFailure(str(error))
    except OutboundError as error:
        failure = DeliveryFailed(read_url(delivery.endpoint.url).host, error.fact)
    state = DeliveryState.RETRYING
    if failure is None:
        state = DeliveryState.SUCCEEDED
    elif is_last or isinstance(failure, PermanentFailure):
        state = DeliveryState.DEAD
    is_recorded = services.record_attempt(
        delivery.pk,
        state,
        duration_ms=round((time.monotonic() - started_s) * 1_000),
        response=response,
        error="" if failure is None else str(failure),
        disable_reason=disable_reason,
    )
    if not is_recorded:
        raise _no_such(delivery_id)
    if failure is not None:
        raise failure


def _send(delivery: Delivery) -> Response:
    body = signing.body_of(delivery.event)
    headers = signing.headers_for(delivery.webhook_id, body, delivery.endpoint.secret, clock.utc_now())
    return send(
        "POST",
        delivery.endpoint.url,
        headers=headers,
        body=body,
        deadline_s=DEADLINE_S,
        max_bytes=MAX_RESPONSE_BYTES,
        truncate=True,
    )


def _judge(host: str, response: Response) -> tuple[Exception | None, str]:
    """Return the exception for the actor to raise, and the reason to disable the endpoint."""
    status = response.status
    if 200 <= status < 300:
        return None, ""
    if status == GONE:
        reason = f"answered 410 Gone at {timezone.now():%Y-%m-%d %H:%M} UTC"
        return PermanentFailure(f"{host}: {reason}; the endpoint is disabled, enable it once it is back"), reason
    if status in ASKS_TO_WAIT:
        wait_s = seconds_of(response.headers.get("retry-after", ""), clock.utc_now())
        if wait_s is not None:
            told = f"{host}: answered {status} and asks for {wait_s:g} s; it is tried again then"
            return RetryLater(wait_s, told, per="endpoint_id"), ""
    return (DeliveryFailed if status >= SERVER_FAILURE else DeliveryRefused)(host, f"answered {status}"), ""


def seconds_of(value: str, now: datetime) -> float | None:
    """Return the wait that ``Retry-After`` names, in seconds between 0 and an hour; ``None`` if it is invalid."""
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_WAIT_S)
    try:
        at = parsedate_to_datetime(value)
        return min(max((at - now).total_seconds(), 0.0), MAX_WAIT_S)
    except (TypeError, ValueError, OverflowError):
        # A date without a zone cannot be compared; HTTP's dates always have one.
        return None


def _no_such(delivery_id: str) -> PermanentFailure:
    return PermanentFailure(f"delivery {delivery_id}: does not exist; it was deleted, discard this job")
