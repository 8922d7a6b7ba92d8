"""Refusals of the API as RFC 9457 problem documents: one shape for every error."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse

CONTENT_TYPE = "application/problem+json"
# Python 3.11 still has the phrases of RFC 7231 for these.
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


@dataclass(frozen=True, slots=True)
class FieldError:
    """Error of one field: its path in the body (``events.0``), a parameter or header; empty for the body itself."""

    field: str
    message: str


@dataclass(eq=False, repr=False)
class Problem(Exception):
    """A refused request; raised anywhere below a view, returned as ``application/problem+json``.

    Args:
        status: HTTP status, 400 … 599.
        detail: Fault of this request, shown to the caller: no secrets, no internals.
        errors: The fields that are wrong.
        headers: Further headers, for example ``Retry-After`` in seconds.
        type: A URI that names the kind of problem, where the status alone does not.
        outcome: Whether the request's work was enqueued, ``not_enqueued`` or ``unknown``; empty where none is enqueued.
        job_ids: Jobs of the request that are or may be enqueued.
    """

    status: int
    detail: str
    _: KW_ONLY
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    type: str = "about:blank"
    outcome: str = ""
    job_ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__init__(f"{self.status}: {self.detail}")

    def document(self) -> dict[str, Any]:
        """Return the body: ``type``, ``title``, ``status``, ``detail``; ``errors``, ``outcome``, ``job_ids`` if any."""
        body = {"type": self.type, "title": title_of(self.status), "status": self.status, "detail": self.detail}
        more = {"errors": list(map(asdict, self.errors)), "outcome": self.outcome, "job_ids": list(self.job_ids)}
        return body | {name: value for name, value in more.items() if value}

    def encoded(self) -> bytes:
        return json.dumps(self.document(), ensure_ascii=False).encode()

    def response(self) -> HttpResponse:
        return HttpResponse(self.encoded(), status=self.status, content_type=CONTENT_TYPE, headers=self.headers)


def title_of(status: int) -> str:
    """Return the reason phrase of a status by RFC 9110."""
    if status in TITLES:
        return TITLES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
