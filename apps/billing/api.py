"""API of billing. ``router`` serves ``/reconciliations``, ``payments_router`` for ``/payments``."""

import logging
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Router, Status

from apps.billing import services, signatures
from apps.billing.actors import apply_payment_event, reconcile_month
from apps.billing.schemas import EventTaken, PaymentReceived, ReconciliationRequest, event_schema
from switchyard.api.auth import submit_scope
from switchyard.api.parsing import read_json
from switchyard.api.problems import Problem
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, ProblemBody
from switchyard.jobs.services import submit
from switchyard.middleware.clock_comparison import compared_now

logger = logging.getLogger(__name__)
router = Router(tags=["Billing"])
payments_router = Router(tags=["Billing"])

_SIGNATURE_HEADERS = {
    signatures.ID_HEADER: "Id of the event, the same when it is sent again.",
    signatures.TIMESTAMP_HEADER: "Now, in whole seconds since the epoch; at most 5 minutes off.",
    signatures.SIGNATURE_HEADER: "`v1,` and the base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`.",
}
# The body is read after its signature is verified, so django-ninja documents neither by itself.
_SIGNED_EVENT: dict[str, Any] = {
    "parameters": [
        {"in": "header", "name": name, "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in _SIGNATURE_HEADERS.items()
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": event_schema()}}},
}


@router.post("", auth=submit_scope, response={202: Accepted}, summary="Reconcile a month")
def create_reconciliation(request: Any, body: ReconciliationRequest) -> Status[dict[str, str]]:
    """Reconcile a month's invoices with the payments. The result is `{"matched", "unmatched", "corrected"}`."""
    job_id = submit(reconcile_month, owner=request.auth.owner_key, kwargs={"month": body.month})
    return Status(202, accepted(request, job_id))


@payments_router.post(
    "/events",
    auth=None,
    response={202: EventTaken, 401: ProblemBody, 409: ProblemBody, 429: ProblemBody},
    summary="Take in a payment event",
    openapi_extra=_SIGNED_EVENT,
)
def create_payment_event(request: HttpRequest) -> Status[dict[str, str]]:
    """Store a signed event and enqueue its application. Takes no bearer token: the signature identifies the sender.

    Signed according to [Standard Webhooks](https://www.standardwebhooks.com), with the secret in
    `SWITCHYARD_PAYMENT_SECRET`. An event sent again under the same `webhook-id` gets 202 again and is applied once.
    """
    try:
        now_s = compared_now().timestamp()
        external_id = signatures.verify(settings.PAYMENT_SECRET, request.headers, request.body, now_s=now_s)
    except signatures.SignatureRefused as error:
        logger.warning("payment event refused: %s", error)
        raise Problem(401, str(error), headers={"WWW-Authenticate": "Signature"}) from error
    body = read_json(request, PaymentReceived)
    try:
        event, unsent = services.receive_event(external_id, body.model_dump(mode="json"))
    except services.EventDiffers as error:
        raise Problem(409, str(error)) from error
    if unsent:
        job_id = submit(apply_payment_event, job_id=services.job_id_of(event), kwargs={"event_id": event.pk})
        services.note_job(event, job_id)
    return Status(202, {"event_id": external_id})
