"""HTTP API of jobs: sending public actors, state, live events, result file and cancellation."""

import json
import re
from dataclasses import replace
from enum import Enum
from typing import Annotated, Any, Final, Literal

import dramatiq
import msgspec
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from dramatiq.actor import Actor
from ninja import Router, Status
from pydantic import BaseModel, Field

from switchyard.api.auth import cancel_scope, operate_scope, plain_token, read_scope, submit_scope, token_of
from switchyard.api.parsing import invalid
from switchyard.api.problems import FieldError, Problem
from switchyard.api.responses import accepted, job_url
from switchyard.api.schemas import Accepted, StrictSchema
from switchyard.api.tokens import find_token
from switchyard.audit.services import Who
from switchyard.broker.errors import ArgumentsRefused, NotFound
from switchyard.broker.queue.codec import LONGEST_NAME
from switchyard.broker.stores.job_records import Job
from switchyard.broker.topology import LONGEST_DELAY_MS
from switchyard.console.queue_rights import holds
from switchyard.history.filters import Filter
from switchyard.jobs import live
from switchyard.jobs.calls import from_values, parameters_of
from switchyard.jobs.listing.pages import LIMIT, find_jobs
from switchyard.jobs.live import free_database
from switchyard.jobs.passport.why import unfinished, why, why_json
from switchyard.jobs.presentation import job_json, result_file
from switchyard.jobs.queries import find_known, find_untracked, holder_of_key, stands_for, visible_job
from switchyard.jobs.results import open_download
from switchyard.jobs.services import request_cancel, send_for

COMPONENTS: Final = "#/components/schemas/"
Schema = dict[str, Any]
State = Literal["scheduled", "queued", "running", "retrying", "succeeded", "cancelled", "expired", "dead"]


class JobProgress(BaseModel):
    """Progress of a job: steps done, steps in all, and the current step."""

    done: int
    total: int
    note: str


class JobFailure(BaseModel):
    """Why the last attempt failed."""

    type: str
    message: str


class JobBody(BaseModel):
    """A job. Times are ISO 8601 in UTC with microseconds; null for what is not known or has not happened.

    `stands_for` are the last jobs that were not enqueued because this one held their unique key; in a list, none are.
    `arguments` are null for tokens that may not view them. In a list `result` is null for one that a store keeps.
    """

    id: str
    actor: str
    queue: str
    state: State
    reason: str | None
    attempts: int
    progress: JobProgress | None
    enqueued_at: str | None
    started_at: str | None
    finished_at: str | None
    result: Any
    error: JobFailure | None
    next_attempt_at: str | None
    owner: str | None
    tags: list[str]
    parent: str | None
    origin: dict[str, str]
    generation: int
    cancel_requested: bool
    failed_at: str | None
    fingerprint: str | None
    wait_ms: int | None
    lane: str | None
    pool: str | None
    worker: str | None
    release: str | None
    result_url: str | None
    run_ms: int | None
    arguments: dict[str, Any] | None
    stands_for: list[str]


class CauseBody(BaseModel):
    """One cause that a job does not run. `until` is when it ends by itself, null where nobody knows."""

    code: str
    text: str
    until: str | None


class WaitBody(BaseModel):
    """The wait of a job since it was enqueued, in parts that follow one another (ms).

    `attempts_ms` ends with its last attempt. `put_off_ms` was spent behind a pause, a circuit or a limit, or without
    code.
    """

    attempts_ms: int
    outbox_ms: int
    scheduled_ms: int
    put_off_ms: int
    waiting_ms: int
    total_ms: int


class StartsBody(BaseModel):
    """When a job will start, in nine of ten cases. `latest` is null where only the earliest time is known."""

    earliest: str
    latest: str | None


class WhyBody(BaseModel):
    """Why a job has not run: the first cause is where it stands, the others are those that it will meet."""

    id: str
    state: State
    causes: list[CauseBody]
    wait: WaitBody
    starts: StartsBody | None


class JobRequest(StrictSchema):
    """A job of a public actor: its arguments by name, and the milliseconds until it may start."""

    actor: Annotated[str, Field(max_length=LONGEST_NAME)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    delay_ms: Annotated[int, Field(ge=0, le=LONGEST_DELAY_MS)] = 0


class JobList(BaseModel):
    """A page of the list of jobs.

    ``after`` is the cursor of the next page, null at the end. ``cut`` names the queues that hold more messages than the
    10,000 that are looked through, ``away`` those on a server that does not answer: their jobs that have not
    ended are missing.
    """

    jobs: list[JobBody]
    after: str | None
    cut: list[str]
    away: list[str]


router = Router(tags=["Jobs"])

MOST_LISTED = 200
UNKNOWN = "no job has this id, or it has ended: its record has expired, or it was sent with track=False and has none"
EVENT: dict[str, Any] = {
    "title": "JobEvent",
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["state", "progress", "end"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "`state` and `end`: an object with `state` and what is known of it; "
            "`progress`: `done`, `total` and `note`.",
        },
    },
}
EVENTS_DOC: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": "Last-Event-ID",
            "required": False,
            "description": "Id of the last event that was read; what came after it follows.",
            "schema": {"type": "string", "maxLength": 41},
        }
    ],
    "responses": {
        200: {
            "description": "Events `state`, `progress` and, last, `end`; a comment every 15 s.",
            "content": {"text/event-stream": {"schema": EVENT}},
        },
        204: {"description": "The job has ended and its last event was read: nothing follows."},
        429: {"description": "The token has as many streams as it may."},
    },
}
TEXT: dict[str, Any] = {"type": "string"}
SCHEMAS = {"limit": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": LIMIT}}
SEND_DOC: dict[str, Any] = {
    "responses": {
        202: {"headers": {"Location": {"description": "URL of the job's state.", "schema": TEXT}}},
        404: {"description": "No public actor has this name."},
    }
}
LIST_DOC: dict[str, Any] = {
    "parameters": [
        {"in": "query", "name": name, "required": False, "description": text, "schema": SCHEMAS.get(name, TEXT)}
        for name, text in (
            ("state", "States, separated by commas."),
            ("actor", "Name of an actor."),
            ("queue", "Name of a queue."),
            ("owner", "Owner, for operators; other tokens list the jobs of their owner."),
            ("parent", "Id of the job that sent it."),
            ("tag", "One of the job's tags."),
            ("argument", "`name=value`; needs the right to view arguments."),
            ("error", "Class of the last failure's exception, or a part of its text."),
            ("fingerprint", "Fingerprint of the last failure."),
            ("release", "Release of the worker that ran it last."),
            ("waited", "Milliseconds that ended jobs waited for their last start: `80-320`, `80-`, `-320`."),
            ("ran", "Milliseconds that their last attempt ran, as `waited`."),
            ("since", "`30m`, `1h` or `7d` ago, or an ISO 8601 time."),
            ("until", "As `since`; the time itself is left out."),
            ("failures", "1: jobs with a failed attempt, also those that were retried."),
            ("after", "Cursor of the page before."),
            ("limit", "Jobs of a page."),
        )
    ],
    "responses": {422: {"description": "A name or a value of the query is unusable."}},
}
RESULT_DOC: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The file.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        302: {"description": "A short-lived link to the file, where the storage makes links."},
        409: {"description": "The job has not ended."},
    }
}


@router.get(
    "", auth=read_scope, response={200: JobList}, url_name="jobs", operation_id="list_jobs", openapi_extra=LIST_DOC
)
def list_jobs(request: HttpRequest) -> dict[str, Any]:
    """List jobs, newest first: unfinished ones by the time they were enqueued, ended ones by their end.

    Of what has not ended the first 10,000 messages of each queue are looked through. Jobs of the state `scheduled`
    alone are listed in the order of their due time, the next first, however many there are.
    """
    owner, operator = _caller(request)
    try:
        wanted = Filter.from_query(request.GET, ignore=("after", "limit"))
        limit = _limit(request.GET.get("limit", ""))
        arguments = _may_view_arguments(request, wanted.queue)
        if wanted.argument is not None and not arguments:
            right = "switchyard_jobs.view_arguments"
            raise Problem(403, f"searching arguments needs the scope operate and the right {right}")
        if not operator and wanted.owner not in ("", owner):
            raise Problem(403, "a token without the scope operate lists the jobs of its owner; leave owner out")
        wanted = wanted if operator else replace(wanted, owner=owner)
        page = find_jobs(wanted, after=request.GET.get("after", ""), limit=limit)
    except ValueError as error:
        raise Problem(422, str(error)) from error
    if page.broker_error:
        raise Problem(503, "the broker does not answer; try again later", headers={"Retry-After": "1"})
    if page.history_error:
        raise Problem(503, "the database cannot be read; try again later", headers={"Retry-After": "1"})
    return {
        "jobs": [_shown(request, job, arguments=arguments) for job in page.jobs],
        "after": page.after or None,
        "cut": list(page.cut),
        "away": list(page.away),
    }


@router.post(
    "", auth=submit_scope, response={202: Accepted}, url_name="jobs", operation_id="send_job", openapi_extra=SEND_DOC
)
def send_job(request: HttpRequest, response: HttpResponse, body: JobRequest) -> Status[dict[str, str]]:
    """Send a job of a public actor. While another job holds its unique key, nothing is sent and that one is answered.

    An actor is public by `public=True` where it is declared; its queue and its other options are its own.
    """
    known = public_actors()
    if (actor := known.get(body.actor)) is None:
        raise NotFound(
            f"actor {body.actor:.200}: no public actor has this name; public are {', '.join(known) or 'none'}"
        )
    try:
        call = from_values(actor, body.arguments)
    except ArgumentsRefused as error:
        faults = error.faults.items()
        raise invalid(
            [FieldError(f"arguments.{name}" if name else "arguments", fault) for name, fault in faults]
        ) from error
    owner = request.auth.owner_key  # type: ignore[attr-defined]
    who = Who.of_request(request, own=True)  # the token's scope lets it, not the right to run jobs
    answer = accepted(request, send_for(actor, call, who=who, owner=owner, delay_ms=body.delay_ms or None))
    response["Location"] = answer["status_url"]
    return Status(202, answer)


def public_actors() -> dict[str, Actor[..., Any]]:
    found = sorted(dramatiq.get_broker().actors.items())
    return {name: actor for name, actor in found if actor.options.get("public")}


def body_of_calls() -> tuple[Schema, dict[str, Schema]]:
    """Return the schema of a job that is sent, one alternative for each public actor, and the schemas that it names.

    Both are empty where no actor is public.
    """
    named: dict[str, Schema] = {}
    calls: dict[str, str] = {}
    for name, actor in public_actors().items():
        key = "Job." + re.sub(r"\W", lambda found: f"-{ord(found[0]):x}-", name, flags=re.ASCII)
        arguments = _arguments(actor, key, named)
        named[f"{key}.Arguments"], calls[name] = arguments, COMPONENTS + key
        named[key] = {
            "title": key,
            "type": "object",
            "description": (actor.fn.__doc__ or "").strip().partition("\n")[0],
            "properties": {
                "actor": {"const": name, "type": "string"},
                "arguments": {"$ref": f"{COMPONENTS}{key}.Arguments"},
                "delay_ms": {"type": "integer", "minimum": 0, "maximum": LONGEST_DELAY_MS},
            },
            "required": ["actor", "arguments"] if arguments["required"] else ["actor"],
            "additionalProperties": False,
        }
    if not calls:
        return {}, {}
    alternatives = [{"$ref": each} for each in calls.values()]
    return {"oneOf": alternatives, "discriminator": {"propertyName": "actor", "mapping": calls}}, named


def _arguments(actor: Actor[..., Any], key: str, named: dict[str, Schema]) -> Schema:
    """Return the schema of an actor's arguments by name; classes that it names are added to the named schemas."""
    parameters = parameters_of(actor)
    template = f"{COMPONENTS}{key}.{{name}}"
    schemas, classes = msgspec.json.schema_components(
        [each.value_type for each in parameters], schema_hook=_of_class, ref_template=template
    )
    named |= {f"{key}.{name}": schema for name, schema in classes.items()}
    properties: Schema = {}
    for each, schema in zip(parameters, schemas, strict=True):
        default = {"default": json.loads(each.default)} if each.default else {}
        properties[each.name] = schema | default | ({"writeOnly": True} if each.redacted else {})
    return {
        "title": f"{key}.Arguments",
        "type": "object",
        "properties": properties,
        "required": [each.name for each in parameters if each.required],
        "additionalProperties": False,
    }


def _of_class(kind: type) -> Schema:
    """Return the schema of a class that msgspec does not know: Django's choices; any other counts as no annotation."""
    return {"enum": [member.value for member in kind]} if issubclass(kind, Enum) else {}


send_job.describe_body = body_of_calls  # type: ignore[attr-defined]


@router.get("/{job_id}", auth=read_scope, response={200: JobBody}, url_name="job", operation_id="get_job")
def get_job(request: HttpRequest, job_id: str) -> dict[str, Any]:
    """Return the state of a job."""
    job = _visible(request, job_id)
    shown = _shown(request, job, arguments=_may_view_arguments(request, job.queue))
    return shown | {"stands_for": stands_for(job)}


@router.get(
    "/{job_id}/why",
    auth=operate_scope,
    response={200: WhyBody},
    url_name="job_why",
    operation_id="explain_job",
    openapi_extra={"responses": {409: {"description": "The job has ended."}}},
)
def explain_job(request: HttpRequest, job_id: str) -> dict[str, Any]:
    """Say why a job has not run: its causes, its wait so far by parts, and when it will start.

    It tells of acts of people and of what other jobs do, so it needs the scope `operate`.
    """
    if (known := unfinished(job_id)) is None:
        raise Problem(404, UNKNOWN)
    found = why(known, arguments=_may_view_arguments(request, known.job.queue))
    if found is None:
        raise Problem(409, f"the job has ended ({known.job.state}); read it at its status_url")
    return why_json(found)


@router.delete(
    "/{job_id}",
    auth=cancel_scope,
    response={202: Accepted},
    url_name="job",
    operation_id="cancel_job",
    openapi_extra={"responses": {409: {"description": "The job has ended already."}}},
)
def cancel_job(request: HttpRequest, job_id: str) -> Status[dict[str, str]]:
    """Cancel a job: a waiting job never starts, a running job is stopped within 10 seconds.

    A job without a record can be cancelled until it ends; its state cannot be read.
    """
    owner, operator = _caller(request)
    job = find_known(job_id) or find_untracked(job_id)
    is_own = job is not None and bool(owner) and job.owner == owner
    if job is None or not (is_own or operator):
        raise Problem(404, UNKNOWN)
    outcome = request_cancel(job_id, who=Who.of_request(request, own=is_own))
    if outcome == "unknown":
        raise Problem(404, UNKNOWN)
    if outcome == "ended":
        raise Problem(409, "the job has ended already; there is nothing to cancel")
    return Status(202, accepted(request, job_id))


@router.get(
    "/{job_id}/events", auth=read_scope, url_name="job_events", operation_id="follow_job", openapi_extra=EVENTS_DOC
)
async def follow_job(request: HttpRequest, job_id: str) -> HttpResponseBase:
    """Follow a job live as server-sent events, up to its end."""
    job = await sync_to_async(_visible)(request, job_id)

    def allowed() -> bool:
        token = find_token(plain_token(request))
        return token is not None and token.allows("operate" if token.owner_key != job.owner else "read")

    return await live.answer(request, job, caller=str(request.auth.prefix), allowed=allowed)  # type: ignore[attr-defined]


@router.get(
    "/{job_id}/result", auth=read_scope, url_name="job_result", operation_id="get_job_result", openapi_extra=RESULT_DOC
)
async def get_job_result(request: HttpRequest, job_id: str) -> HttpResponseBase:
    """Download the result file of a job."""
    job = await sync_to_async(_visible)(request, job_id)
    if not job.ended:
        raise Problem(409, f"the job is {job.state}; its result is here once it has succeeded")
    described, answer = result_file(job), None
    if described is not None:
        name, filename, content_type = (described[key] for key in ("file", "filename", "content_type"))
        answer = await sync_to_async(open_download)(name, filename=filename, content_type=content_type)
    if answer is None:
        raise Problem(404, "the job left no file, or it was removed")
    await free_database()
    return answer


def _shown(request: HttpRequest, job: Job, *, arguments: bool) -> dict[str, Any]:
    url = job_url(request, job.id, part="result") if result_file(job) else None
    return job_json(job, arguments=arguments, result_url=url)


def _visible(request: HttpRequest, job_id: str) -> Job:
    owner, operator = _caller(request)
    job = visible_job(job_id, owner=owner, operator=operator)
    if job is None:
        held = holder_of_key(job_id)
        if held and visible_job(held, owner=owner, operator=operator) is not None:
            raise Problem(404, f"nothing was enqueued under this id: job {held} held its unique key and stands for it")
        raise Problem(404, "no job has this id, or it has left broker and history")
    return job


def _caller(request: HttpRequest) -> tuple[str, bool]:
    """Return the owner key of a request's token, and whether it may operate."""
    token = token_of(request)
    return ("", False) if token is None else (token.owner_key, token.allows("operate"))


def _may_view_arguments(request: HttpRequest, queue: str) -> bool:
    token = token_of(request)
    if token is None or not token.allows("operate"):
        return False
    return holds(token.owner, "switchyard_jobs.view_arguments", queue)


def _limit(text: str) -> int:
    if not text:
        return LIMIT
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MOST_LISTED):
        raise ValueError(f"limit: {text!r:.50} is not a number from 1 to {MOST_LISTED}")
    return int(text)
