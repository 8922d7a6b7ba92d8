"""API of exports."""

from typing import Any, Literal

from ninja import Router, Status

from apps.exports.actors import export_dataset
from switchyard.api.auth import submit_scope
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, StrictSchema
from switchyard.jobs.services import submit

router = Router(tags=["Exports"])


class ExportRequest(StrictSchema):
    """A dataset and the format to write it in."""

    dataset: Literal["invoices", "payments", "customers"]
    format: Literal["csv", "xlsx"]


@router.post("", auth=submit_scope, response={202: Accepted}, operation_id="create_export")
def create_export(request: Any, body: ExportRequest) -> Status[dict[str, str]]:
    """Export a dataset as a file. Text is written so that no spreadsheet takes it for a formula."""
    job_id = submit(export_dataset, owner=request.auth.owner_key, kwargs=body.model_dump())
    return Status(202, accepted(request, job_id))
