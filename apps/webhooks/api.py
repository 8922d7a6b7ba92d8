"""API of webhooks: register an endpoint, publish an event."""

from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Router, Status
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from apps.outbound.addresses import MAX_URL_CHARACTERS
from apps.outbound.given_urls import refuse_forbidden
from apps.webhooks import publishing, services
from apps.webhooks.signing import canonical
from switchyard.api.auth import submit_scope
from switchyard.api.parsing import invalid
from switchyard.api.problems import FieldError, Problem
from switchyard.api.schemas import ProblemBody, StrictSchema

router = Router(tags=["Webhooks"])

MAX_PAYLOAD_BYTES = 64 * 1024

EventType = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=100, examples=["invoice.paid"])
]


def _distinct(values: list[str]) -> list[str]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise PydanticCustomError("repeated", "names {first} twice; name each event once", {"first": repeated[0]})
    return values


class EndpointRequest(StrictSchema):
    """A URL that receives all events of some types from now on."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARACTERS, examples=["https://example.com/hook"])]
    events: Annotated[
        list[EventType],
        AfterValidator(_distinct),
        Field(min_length=1, max_length=100, json_schema_extra={"uniqueItems": True}),
    ]
    in_order: Annotated[bool, Field(description="Deliver each event after the end of those before it.")] = False


class EndpointCreated(BaseModel):
    """The endpoint, and the secret that verifies its deliveries: the secret is shown only once."""

    id: str
    secret: str


class EventRequest(StrictSchema):
    """An event to deliver."""

    event: EventType
    payload: dict[str, Any]


class Published(BaseModel):
    """One job for each endpoint that is subscribed."""

    job_ids: list[str]


@router.post(
    "/endpoints",
    auth=submit_scope,
    response={201: EndpointCreated, 409: ProblemBody},
    operation_id="create_webhook_endpoint",
)
def create_endpoint(request: HttpRequest, body: EndpointRequest) -> Status[dict[str, str]]:
    """Register an endpoint for types of events. Its address must be public; deliveries follow Standard Webhooks."""
    refuse_forbidden(body.url)
    try:
        endpoint, secret = services.create_endpoint(_owner(request), body.url, body.events, in_order=body.in_order)
    except services.TooManyEndpoints as error:
        raise Problem(409, str(error)) from error
    return Status(201, {"id": str(endpoint.pk), "secret": secret})


@router.post("/events", auth=submit_scope, response={202: Published}, operation_id="publish_webhook_event")
def publish_event(request: HttpRequest, body: EventRequest) -> Status[dict[str, list[str]]]:
    """Deliver an event to each of the caller's endpoints that is subscribed to it."""
    size_bytes = len(canonical(body.payload))
    if size_bytes > MAX_PAYLOAD_BYTES:
        message = f"has {size_bytes} bytes as compact JSON, {MAX_PAYLOAD_BYTES} are the most; send a reference instead"
        raise invalid([FieldError("payload", message)])
    return Status(202, {"job_ids": publishing.publish(_owner(request), body.event, body.payload)})


def _owner(request: HttpRequest) -> str:
    owner: str = request.auth.owner_key  # type: ignore[attr-defined]  # set by submit_scope
    return owner
