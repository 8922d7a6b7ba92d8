"""Batches in the API."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Status
from pydantic import BaseModel, Field

from switchyard.api.auth import operate_scope
from switchyard.api.problems import Problem
from switchyard.audit.services import Who
from switchyard.batches import queries
from switchyard.bulk import services as bulk
from switchyard.bulk.kinds import kind_of

router = Router(tags=["Batches"])


class BatchBody(BaseModel):
    """A batch as it is counted. Times are null for what has not happened."""

    id: str
    name: str
    state: str = Field(description="open; complete: closed, and every member has ended; succeeded: all are done.")
    total: int = Field(description="Members.")
    open: int = Field(description="Members that have not ended.")
    done: int
    failed: int
    cancelled: int
    tags: list[str]
    parent: str | None = Field(description="Id of the job that made it.")
    created_at: str | None
    changed_at: str | None = Field(description="When a member was added, or ended.")
    closed_at: str | None
    cancelled_at: str | None
    completed_at: str | None
    callbacks: dict[str, str | None] = Field(description="When each of its callbacks was sent.")


class BatchesBody(BaseModel):
    """A page of batches, newest first."""

    batches: list[BatchBody]
    before: int | None = Field(description="Where the older ones begin; null at the end.")


class MemberBody(BaseModel):
    """A member of a batch; its id is that of a job."""

    id: str
    queue: str


class MembersBody(BaseModel):
    """A page of members, in no order."""

    members: list[MemberBody]
    cursor: str | None = Field(description="Where the next ones begin; null at the end.")


class ActBody(BaseModel):
    """The bulk act that was started."""

    bulk_act: int


@router.get("", auth=operate_scope, response={200: BatchesBody}, url_name="batches", operation_id="list_batches")
def list_batches(request: HttpRequest, before: int | None = None) -> dict[str, Any]:
    """List batches, newest first."""
    page = queries.newest(before=before)
    return {"batches": [queries.summary(record) for record in page.batches], "before": page.before}


@router.get("/{batch_id}", auth=operate_scope, response={200: BatchBody}, url_name="batch", operation_id="get_batch")
def get_batch(request: HttpRequest, batch_id: str) -> dict[str, Any]:
    """Return a batch."""
    return queries.summary(queries.find(batch_id))


@router.get(
    "/{batch_id}/members",
    auth=operate_scope,
    response={200: MembersBody},
    url_name="batch_members",
    operation_id="list_batch_members",
)
def list_batch_members(request: HttpRequest, batch_id: str, state: str = "open", cursor: str = "0") -> dict[str, Any]:
    """List the members of a batch in a state: `open`, `done`, `failed` or `cancelled`."""
    record = queries.find(batch_id)
    try:
        page = queries.members(record.id, state, cursor=cursor)
    except ValueError as error:
        raise Problem(422, str(error)) from error
    members = [{"id": id_, "queue": queue} for id_, queue in page.found.items()]
    return {"members": members, "cursor": None if page.cursor == "0" else page.cursor}


@router.delete(
    "/{batch_id}", auth=operate_scope, response={202: ActBody}, url_name="batch", operation_id="cancel_batch"
)
def cancel_batch(request: HttpRequest, batch_id: str) -> Status[dict[str, int]]:
    """Cancel what has not ended in a batch, as a bulk act; it takes no more members."""
    return _started("batch.cancel", request, batch_id)


@router.post(
    "/{batch_id}/retry", auth=operate_scope, response={202: ActBody}, url_name="batch_retry", operation_id="retry_batch"
)
def retry_batch(request: HttpRequest, batch_id: str) -> Status[dict[str, int]]:
    """Requeue the dead letters of a batch, as a bulk act."""
    return _started("batch.retry", request, batch_id)


def _started(kind: str, request: HttpRequest, batch_id: str) -> Status[dict[str, int]]:
    record, right = queries.find(batch_id), kind_of(kind).right
    if not request.auth.owner.has_perm(right):  # type: ignore[attr-defined]
        raise Problem(403, f"the token's owner lacks the right {right}; give it to that user")
    return Status(202, {"bulk_act": bulk.start(kind, {"batch": record.id}, who=Who.of_request(request)).pk})
