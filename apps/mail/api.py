"""API of mails."""

from typing import Annotated, Any, Literal

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from ninja import Router, Status
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from apps.mail import allowances
from apps.mail.actors import ACTORS
from apps.mail.models import Template
from switchyard.api.auth import BearerToken
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, StrictSchema
from switchyard.jobs.services import submit

router = Router(tags=["Mail"])
MAX_ADDRESS_CHARACTERS = 254


def _address(value: str) -> str:
    try:
        validate_email(value)
    except ValidationError:
        raise PydanticCustomError("address", "is not an e-mail address; give one such as ada@example.com") from None
    if value.startswith('"'):
        remedy = "has a quoted name before the @, which mailboxes do not need; give it without quotes: ada@example.com"
        raise PydanticCustomError("address", remedy)
    return value


Address = Annotated[
    str,
    AfterValidator(_address),
    Field(max_length=MAX_ADDRESS_CHARACTERS, json_schema_extra={"format": "email"}, examples=["ada@example.com"]),
]


class EmailRequest(StrictSchema):
    """A mail to one address, from a template."""

    to: Address
    template: Literal["welcome", "password_reset"]


@router.post("", auth=BearerToken("submit", a_minute=600), response={202: Accepted}, operation_id="send_email")
def send_email(request: Any, body: EmailRequest) -> Status[dict[str, str]]:
    """Send a mail. A password reset overtakes everything else; welcome mails go out ten a minute.

    One mailbox gets at most ten password resets in 15 minutes, however its address is spelt.
    """
    if body.template == Template.PASSWORD_RESET:
        allowances.require(body.to)
    job_id = submit(ACTORS[body.template], owner=request.auth.owner_key, kwargs={"to": body.to})
    return Status(202, accepted(request, job_id))
