"""Limits and circuits in the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import dramatiq
from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel, Field

from switchyard.api.auth import operate_scope
from switchyard.api.problems import Problem, not_found
from switchyard.api.schemas import Line, StrictSchema
from switchyard.audit.services import Who
from switchyard.broker.admin.limits import KeyPage, LimitState
from switchyard.broker.errors import ActRefused, NotFound
from switchyard.console.formatting import parse_until
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.jobs import pauses
from switchyard.middleware.clock_comparison import compared_now
from switchyard.queues import limits

router = Router(tags=["Limits"])
PAUSE = "switchyard_operations.pause_queue"


class OverrideRequest(StrictSchema):
    """An override to make, until a span such as 30m or 2h, a time of day in UTC, or ISO 8601; or to end."""

    limit: Line = Field(description="Id of the limit.")
    n: int | None = Field(description="The number that counts until then; null ends the override.")
    until: Line = ""
    reason: str = ""


class CircuitRequest(StrictSchema):
    """A circuit to open, until a time as in an override, or to close."""

    actor: Line = Field(description="An actor that depends on it.")
    argument: Line = Field("", description="NAME=VALUE of the argument that has a circuit for each value.")
    state: Literal["open", "closed"]
    until: Line = Field("", description="When one job probes it; needed to open it.")
    reason: str = ""


class ChangedBody(BaseModel):
    """Whether the act changed anything."""

    changed: bool


@router.get("", auth=operate_scope, response={200: limits.LimitsNow}, url_name="limits", operation_id="list_limits")
def list_limits(request: HttpRequest) -> limits.LimitsNow:
    """Return every limit and circuit, with what waits for it."""
    return limits.limits_now(arguments=_may(request, ARGUMENTS))


@router.get("/keys", auth=operate_scope, response={200: KeyPage}, url_name="limit_keys", operation_id="list_limit_keys")
def list_limit_keys(request: HttpRequest, limit: str, value: str = "", after: str = "") -> KeyPage:
    """Return a page of the keys of a limit in the order of their JSON, from a value on if you name one."""
    with _answers(request, ARGUMENTS):
        return limits.keys_of(limits.find(limit), value=value, after=after)


@router.put(
    "/override",
    auth=operate_scope,
    response={200: LimitState},
    url_name="limit_override",
    operation_id="override_limit",
)
def override_limit(request: HttpRequest, body: OverrideRequest) -> LimitState:
    """Let another number count for a limit until a time, or end that."""
    with _answers(request, PAUSE):
        until = None if body.n is None else parse_until(body.until, now=compared_now())
        return limits.override(body.limit, body.n, until=until, who=Who.of_request(request), reason=body.reason)


@router.put(
    "/circuit", auth=operate_scope, response={200: ChangedBody}, url_name="limit_circuit", operation_id="turn_circuit"
)
def turn_circuit(request: HttpRequest, body: CircuitRequest) -> dict[str, bool]:
    """Open the circuit that an actor depends on until a time, or close it."""
    with _answers(request, PAUSE, *([ARGUMENTS] if body.argument else [])):
        if (actor := dramatiq.get_broker().actors.get(body.actor)) is None:
            raise NotFound(f"actor {body.actor!r} is not declared")
        wanted, who = pauses.chosen(actor, body.argument), Who.of_request(request)
        if body.state == "closed":
            return {"changed": pauses.resume(wanted, who=who, reason=body.reason)}
        until = parse_until(body.until, now=compared_now())
        return {"changed": pauses.open_circuit(wanted, who=who, until=until, reason=body.reason)}


def _may(request: HttpRequest, right: str) -> bool:
    return holds(request.auth.owner, right)  # type: ignore[attr-defined]


@contextmanager
def _answers(request: HttpRequest, *rights: str) -> Iterator[None]:
    """Require rights of the token's owner, and turn refusals into problem documents."""
    for right in rights:
        if not _may(request, right):
            raise Problem(403, f"the token's owner lacks the right {right}")
    try:
        yield
    except NotFound as error:
        raise not_found(str(error)) from error
    except ActRefused as error:
        raise Problem(422, str(error)) from error
