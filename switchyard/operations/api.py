"""Queues in the API."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel, Field

from switchyard.api.auth import read_scope
from switchyard.broker.errors import BrokerUnavailable
from switchyard.operations import queries
from switchyard.operations.metrics import TIMEOUT_S, YARD_STATE
from switchyard.operations.timeouts import NoAnswer

router = Router(tags=["Queues"])


class PauseBody(BaseModel):
    """Pause of a queue."""

    since: datetime | None
    until: datetime | None = Field(description="When the queue resumes by itself; null for no end.")
    by: str = Field(description="Operator; empty when it was not recorded.")
    reason: str


class QueueBody(BaseModel):
    """State of one queue with its retry lane and dead list."""

    queue: str
    depth: int = Field(description="Messages that wait for a worker.")
    scheduled: int = Field(description="Messages that are not due yet.")
    running: int
    retrying: int = Field(description="Messages in the queue's retry lane.")
    dead: int
    parked: int = Field(description="Scheduled messages that wait for a worker that can run them.")
    quarantined: int = Field(description="Unreadable messages.")
    arrivals_per_second: float | None = Field(
        description="Attempts that arrived, over the last minute or since the first request; null at the first."
    )
    starts_per_second: float | None = Field(description="Attempts that were handed to workers, over the same time.")
    ends_per_second: float | None = Field(description="Attempts that ended, over the same time.")
    oldest_age_seconds: float | None = Field(description="Age of the oldest waiting message; null when none waits.")
    objective_seconds: float | None = Field(description="Time within which a message should start; null for none.")
    done_objective_seconds: float | None = Field(description="Time within which a message should end; null for none.")
    oldest_unfinished_age_seconds: float | None = Field(
        description="Age of the oldest message that waits or is held, where the queue promises its end."
    )
    paused: bool
    pause: PauseBody | None = Field(description="Null while the queue is not paused.")
    pools: list[str]
    pools_up: int
    slots: int
    slots_busy: int


class QueuesBody(BaseModel):
    """Every queue, in the order of the topology."""

    queues: list[QueueBody]
    away: list[str] = Field(
        description="Queues whose server does not answer while others do; they are not among the others."
    )


@router.get("", auth=read_scope, response={200: QueuesBody}, url_name="queues", operation_id="list_queues")
def list_queues(request: HttpRequest) -> dict[str, Any]:
    """Return the state of every queue."""
    try:
        state = YARD_STATE.result(TIMEOUT_S)
    except NoAnswer as error:
        raise BrokerUnavailable("the state of the yard", str(error)) from error
    return {"queues": queries.queues_json(state), "away": list(state.server.away.queues)}
