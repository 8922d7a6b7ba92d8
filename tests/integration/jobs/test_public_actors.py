"""Actors that declare themselves public are sent by tokens, as the OpenAPI document describes them; others are not."""

import datetime
from decimal import Decimal
from typing import Annotated, Any

import dramatiq
import jsonschema
import msgspec
import pytest
from django.db import models
from django.test import Client

from switchyard.audit.models import AuditEntry
from tests.unit.api.conftest import problem

DUE = datetime.date(2026, 10, 1)


class Colour(models.TextChoices):
    RED = "red"
    BLUE = "blue"


class Line(msgspec.Struct):
    """A line of an order."""

    article: str
    count: int = 1


@pytest.fixture(autouse=True)
def actors():

    @dramatiq.actor(actor_name="door_order", queue_name="billing", public=True, redact=("pin",))
    def order(
        customer_id: Annotated[int, msgspec.Meta(ge=1)],
        lines: list[Line],
        due: datetime.date = DUE,
        *,
        discount: Decimal | None = None,
        colour: Colour = Colour.RED,
        pin: str = "9517",
    ) -> None:
        """Take an order.

        At length.
        """

    @dramatiq.actor(actor_name="door_tally", queue_name="billing", public=True, unique_key=lambda month: month)
    def tally(month: str) -> None: ...

    @dramatiq.actor(actor_name="door_any", queue_name="billing", public=True)
    def any_call(first, /, *rest: int, **more: str) -> None: ...

    @dramatiq.actor(actor_name="door_closed", queue_name="billing")
    def closed() -> None: ...


def send(api: Client, body: dict[str, Any], **headers: str) -> Any:
    return api.post("/api/v1/jobs", body, content_type="application/json", headers=headers)


def faults(answer: Any) -> dict[str, str]:
    return {each["field"]: each["message"] for each in problem(answer, 422)["errors"]}


def order(**arguments: Any) -> dict[str, Any]:
    return {"actor": "door_order", "arguments": {"customer_id": 7, "lines": [{"article": "cup"}], **arguments}}


def test_a_public_actor_is_sent_audited_and_seen_by_its_owner(api, ada, facilities):
    answer = send(api, order(due="2026-12-24", pin="1234"))

    job_id = answer.json()["job_id"]
    assert answer.status_code == 202
    assert answer["Location"] == answer.json()["status_url"]
    assert api.get(f"/api/v1/jobs/{job_id}").json()["state"] == "queued"
    message = facilities.transport.find_message("billing", job_id)
    assert message is not None and message.kwargs["due"] == "2026-12-24"
    entry = AuditEntry.objects.get(act="job.send")
    assert (entry.target, entry.detail["job"], entry.via) == ("door_order", job_id, "api")
    assert "1234" not in str(entry.detail)


def test_an_actor_that_is_not_public_is_as_one_that_is_not_and_a_token_may_submit(api, headers):
    known, unknown = (problem(send(api, {"actor": name}), 404) for name in ("door_closed", "door_gone"))

    assert known["detail"] == unknown["detail"].replace("door_gone", "door_closed")
    assert "public are door_any, door_order, door_tally" in known["detail"]
    problem(send(Client(headers=headers("read")), order()), 403)
    problem(send(Client(), order()), 401)


def test_each_wrong_argument_is_named(api):
    arguments = {"customer_id": 0, "due": "soon", "colour": "green", "x": 1}
    wrong = send(api, {"actor": "door_order", "arguments": arguments})
    nested = send(api, order(lines=[{"article": "cup", "colour": "red"}]))

    assert faults(wrong).keys() == {f"arguments.{name}" for name in ("customer_id", "lines", "due", "colour", "x")}
    assert faults(nested) == {"arguments.lines": "expects list[Line]; it has no field 'colour'"}
    assert faults(send(api, order() | {"queue": "urgent"})) == {"queue": "is not a known field; leave it out"}
    assert faults(send(api, order() | {"delay_ms": -1})).keys() == {"delay_ms"}


def test_a_repeated_request_sends_one_job(api, facilities):
    answers = [send(api, order(), **{"Idempotency-Key": "order-7"}) for _ in range(2)]

    assert answers[0].json() == answers[1].json()
    assert answers[0]["Location"] == answers[1]["Location"]
    assert facilities.transport.stats("billing").live.waiting == 1


def test_the_job_that_holds_the_unique_key_is_answered_and_a_delay_schedules(api, facilities):
    body = {"actor": "door_tally", "arguments": {"month": "2026-10"}}
    assert send(api, body).json() == send(api, body).json()
    assert facilities.transport.stats("billing").live.waiting == 1
    job_id = send(api, order() | {"delay_ms": 60_000}).json()["job_id"]
    assert api.get(f"/api/v1/jobs/{job_id}").json()["state"] == "scheduled"


def test_arguments_by_place_and_further_ones_are_named_by_their_parameter(api, facilities):
    arguments = {"first": 1, "rest": [2, 3], "more": {"note": "x"}}
    job_id = send(api, {"actor": "door_any", "arguments": arguments}).json()["job_id"]

    message = facilities.transport.find_message("billing", job_id)
    assert message is not None and (tuple(message.args), message.kwargs) == ((1, 2, 3), {"note": "x"})


def test_the_document_has_a_schema_for_each_public_actor(api):
    document = api.get("/api/v1/openapi.json").json()
    operation, named = document["paths"]["/api/v1/jobs"]["post"], document["components"]["schemas"]

    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert {"door_any", "door_order", "door_tally"} <= body["discriminator"]["mapping"].keys()
    assert "door_closed" not in str(document) and "9517" not in str(named)
    assert {202, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503} <= {int(each) for each in operation["responses"]}
    assert named["Job.door_order"]["description"] == "Take an order."
    arguments = named["Job.door_order.Arguments"]
    assert arguments["required"] == ["customer_id", "lines"]
    assert arguments["properties"]["customer_id"] == {"type": "integer", "minimum": 1}
    assert arguments["properties"]["due"] == {"type": "string", "format": "date", "default": "2026-10-01"}
    assert arguments["properties"]["colour"] == {"enum": ["red", "blue"], "default": "red"}
    assert arguments["properties"]["pin"] == {"type": "string", "writeOnly": True}


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        (order(), True),
        (order(discount=None, colour="blue", due="2026-10-31"), True),
        (order(discount="9.90"), True),
        (order() | {"delay_ms": 0}, True),
        ({"actor": "door_tally", "arguments": {"month": "2026-10"}}, True),
        ({"actor": "door_any", "arguments": {"first": None, "rest": [1], "more": {"a": "b"}}}, True),
        (order(colour="green"), False),
        (order(customer_id="7"), False),
        (order(customer_id=0), False),
        (order(lines=[{"count": 1}]), False),
        (order(month="2026-10"), False),
        ({"actor": "door_tally"}, False),
        ({"actor": "door_any", "arguments": {"first": 1, "rest": ["x"]}}, False),
    ],
)
def test_the_schema_allows_what_is_accepted_and_nothing_else(api, body, allowed):
    document = api.get("/api/v1/openapi.json").json()
    [content] = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"].values()
    schema = {**content["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(schema)

    assert jsonschema.Draft202012Validator(schema).is_valid(body) is allowed
    assert send(api, body).status_code == (202 if allowed else 422)
