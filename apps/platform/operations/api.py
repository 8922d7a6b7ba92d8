"""Queues through the API: how much waits, for how long, and whether it is paused."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel

from apps.platform.api.auth import read_scope
from apps.platform.jobs.availability import answered
from apps.platform.operations.queries import QueueState, queues

router = Router(tags=["Queues"])


class QueueBody(BaseModel):
    """A queue as it stands. ``depth`` is everything in it that is neither finished nor dead."""

    name: str
    depth: int
    waiting: int
    scheduled: int
    running: int
    retrying: int
    dead: int
    oldest_age_seconds: float | None
    paused: bool


@router.get("", auth=read_scope, response={200: list[QueueBody]}, url_name="queues", operation_id="list_queues")
def list_queues(request: HttpRequest) -> list[dict[str, Any]]:
    """Tell how every queue stands."""
    with answered("the queues' state"):
        states = queues()
    return [_body(state) for state in states]


def _body(state: QueueState) -> dict[str, Any]:
    return {
        "name": state.queue,
        "depth": state.waiting + state.scheduled + state.running + state.retrying,
        "waiting": state.waiting,
        "scheduled": state.scheduled,
        "running": state.running,
        "retrying": state.retrying,
        "dead": state.dead,
        "oldest_age_seconds": None if state.oldest_age_ms is None else state.oldest_age_ms / 1000,
        "paused": state.paused,
    }
