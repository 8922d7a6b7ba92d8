"""Limits, circuits and pauses in the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

import dramatiq
from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel, Field

from switchyard.api.auth import operate_scope
from switchyard.api.problems import Problem, not_found
from switchyard.api.schemas import Line, StrictSchema
from switchyard.audit.services import Who
from switchyard.broker.admin.limits import KeyPage, LimitState
from switchyard.broker.errors import NotFound, UnknownQueue
from switchyard.console.formatting import parse_until
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.jobs import pauses
from switchyard.jobs.queries import own_queues
from switchyard.middleware.clock_comparison import compared_now
from switchyard.operations.api import PauseBody
from switchyard.queues import limits, services

router, pauses_router = Router(tags=["Limits"]), Router(tags=["Pauses"])
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


class PauseRequest(StrictSchema):
    """A queue, or an actor, to pause or to resume."""

    queue: Line = Field("", description="Name of a queue; or leave it out, and name an actor.")
    actor: Line = ""
    argument: Line = Field("", description="NAME=VALUE of an argument of the actor: jobs with it alone.")
    state: Literal["paused", "resumed"]
    until: Line = Field("", description="When it resumes by itself, as in an override; without it somebody resumes it.")
    reason: str = ""


class PauseInForce(PauseBody):
    """A pause of a queue or of an actor."""

    queue: str | None
    actor: str | None
    argument: str | None = Field(description="NAME=VALUE if that alone is paused; NAME without the right to see it.")


class PausesBody(BaseModel):
    """Pauses of queues, in the order of the topology, then those of actors."""

    pauses: list[PauseInForce]


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
    with _answers(request, PAUSE):
        wanted, who = _chosen(request, body), Who.of_request(request)
        if body.state == "closed":
            return {"changed": pauses.resume(wanted, who=who, reason=body.reason)}
        until = parse_until(body.until, now=compared_now())
        return {"changed": pauses.open_circuit(wanted, who=who, until=until, reason=body.reason)}


@pauses_router.get("", auth=operate_scope, response={200: PausesBody}, url_name="pauses", operation_id="list_pauses")
def list_pauses(request: HttpRequest) -> dict[str, list[dict[str, Any]]]:
    """Return the pauses in force; open circuits are among the limits."""
    found = [{"queue": queue, "actor": None, "argument": None, **asdict(one)} for queue, one in pauses.paused_queues()]
    actors = dramatiq.get_broker().actors
    for each in (one for one in pauses.paused_actors() if not one.pause.is_open):
        actor = actors.get(each.pause.actor)
        shown = _may(request, ARGUMENTS, own_queues(actor)[0] if actor is not None else "")
        argument = (each.argument if shown else each.pause.argument) or None
        found.append({"queue": None, "actor": each.pause.actor, "argument": argument, **asdict(each.facts)})
    return {"pauses": found}


@pauses_router.put("", auth=operate_scope, response={200: ChangedBody}, url_name="pauses", operation_id="turn_pause")
def turn_pause(request: HttpRequest, body: PauseRequest) -> dict[str, bool]:
    """Pause a queue or an actor: nothing of it starts, what runs goes on; or resume it."""
    with _answers(request, PAUSE):
        if bool(body.queue) == bool(body.actor) or (body.queue and body.argument):
            raise Problem(422, "name a queue, or an actor and perhaps an argument of it")
        on, wanted = (services, body.queue) if body.queue else (pauses, _chosen(request, body))
        who: dict[str, Any] = {"who": Who.of_request(request), "reason": body.reason}
        if body.state == "resumed":
            return {"changed": on.resume(wanted, **who)}
        until = parse_until(body.until, now=compared_now()) if body.until else None
        return {"changed": on.pause(wanted, until=until, **who)}


def _chosen(request: HttpRequest, body: CircuitRequest | PauseRequest) -> pauses.Chosen:
    if (actor := dramatiq.get_broker().actors.get(body.actor)) is None:
        raise NotFound(f"actor {body.actor!r} is not declared")
    if body.argument:  # whether its value is paused tells of jobs
        _require(request, ARGUMENTS, own_queues(actor)[0])
    return pauses.chosen(actor, body.argument)


def _may(request: HttpRequest, right: str, queue: str | None = None) -> bool:
    return holds(request.auth.owner, right, queue)  # type: ignore[attr-defined]


def _require(request: HttpRequest, right: str, queue: str | None = None) -> None:
    if not _may(request, right, queue):
        raise Problem(403, f"the token's owner lacks the right {right}")


@contextmanager
def _answers(request: HttpRequest, *rights: str) -> Iterator[None]:
    """Require rights of the token's owner, and turn refusals into problem documents."""
    for right in rights:
        _require(request, right)
    try:
        yield
    except UnknownQueue as error:
        raise not_found(str(error)) from error
    except services.ForeignBroker as error:
        raise Problem(422, str(error)) from error
