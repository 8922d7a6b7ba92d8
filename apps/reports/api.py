"""API of statements."""

from typing import Any

from django.utils import timezone
from ninja import Router, Status

from apps.reports.actors import generate_report
from apps.shop import months
from apps.shop import queries as shop
from switchyard.api.auth import submit_scope
from switchyard.api.problems import FieldError, Problem
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, Month, RowId, StrictSchema
from switchyard.jobs.services import submit

router = Router(tags=["Reports"])


class ReportRequest(StrictSchema):
    """A customer's statement of one month."""

    customer_id: RowId
    month: Month


@router.post("", auth=submit_scope, response={202: Accepted}, operation_id="create_report")
def create_report(request: Any, body: ReportRequest) -> Status[dict[str, str]]:
    """Make a customer's monthly statement. The result is a PDF; the same content is not written twice."""
    errors = []
    if shop.customer_or_none(body.customer_id) is None:
        errors.append(FieldError("customer_id", f"there is no customer {body.customer_id}"))
    if months.first_day(body.month) > timezone.now().date():
        errors.append(FieldError("month", f"{body.month} has not begun; give the running month or an earlier one"))
    if errors:
        raise Problem(422, "; ".join(error.message for error in errors), errors=errors)
    job_id = submit(generate_report, owner=request.auth.owner_key, kwargs=body.model_dump())
    return Status(202, accepted(request, job_id))
