"""The measured route, written like a product's."""

from typing import Any

from ninja import Router, Status

from benchmarks.web_yard.actors import nothing
from switchyard.api.auth import submit_scope
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, StrictSchema
from switchyard.jobs.services import submit

router = Router(tags=["Benchmark"])


class NothingRequest(StrictSchema):
    """A job that does nothing."""

    note: str


@router.post("", auth=submit_scope, response={202: Accepted}, operation_id="do_nothing")
def do_nothing(request: Any, body: NothingRequest) -> Status[dict[str, str]]:
    """Enqueue the job."""
    return Status(202, accepted(request, submit(nothing, owner=request.auth.owner_key, kwargs={"note": body.note})))
