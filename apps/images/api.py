"""Thumbnails through the API: of a picture behind a URL, or of an uploaded one."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from ninja import Router, Status
from pydantic import Field

from apps.images import requests
from apps.images.making import MAX_BYTES
from apps.outbound.addresses import MAX_URL_CHARACTERS
from apps.outbound.given_urls import refuse_forbidden
from switchyard.api.auth import BearerToken
from switchyard.api.parsing import field_errors, invalid, read_json, refuse_bad_text
from switchyard.api.problems import FieldError, Problem
from switchyard.api.responses import accepted
from switchyard.api.schemas import Accepted, StrictSchema

router = Router(tags=["Images"])

JSON = "application/json"
FORM = "multipart/form-data"
MAX_SIDE = 4096

Side = Annotated[int, Field(ge=1, le=MAX_SIDE, examples=[320])]


class ThumbnailSize(StrictSchema):
    """The box that a thumbnail is fitted into."""

    width: Side
    height: Side


class ThumbnailByUrl(ThumbnailSize):
    """A thumbnail of the picture behind a URL."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARACTERS, examples=["https://example.com/cat.png"])]


def _request_body() -> dict[str, Any]:
    form = ThumbnailSize.model_json_schema()
    form["properties"]["file"] = {"type": "string", "format": "binary", "title": "PNG, JPEG, WebP or GIF, up to 20 MiB"}
    form["required"] = ["file", *form["required"]]
    form["title"] = "ThumbnailOfUpload"
    return {"required": True, "content": {JSON: {"schema": ThumbnailByUrl.model_json_schema()}, FORM: {"schema": form}}}


@router.post(
    "",
    auth=BearerToken("submit", a_minute=600),  # of a slow address each holds a slot of its queue for seconds
    response={202: Accepted},
    operation_id="make_thumbnail",
    openapi_extra={"requestBody": _request_body()},
)
def make_thumbnail(request: HttpRequest) -> Status[dict[str, str]]:
    """Make a thumbnail that fits into width by height. Send a URL as JSON, or the picture itself as a form."""
    owner: str = request.auth.owner_key  # type: ignore[attr-defined]  # set by BearerToken
    if request.content_type == JSON:
        body = read_json(request, ThumbnailByUrl)
        refuse_forbidden(body.url)
        job_id = requests.request(owner, body.width, body.height, source_url=body.url)
    elif request.content_type == FORM:
        size, file = _read_form(request)
        job_id = requests.request_by_upload(owner, file, size.width, size.height)
    else:
        detail = f"the content type is {(request.content_type or '')[:80] or 'not given'!r}; send {JSON} or {FORM}"
        raise Problem(415, detail, headers={"Accept": f"{JSON}, {FORM}"})
    return Status(202, accepted(request, job_id))


def _read_form(request: HttpRequest) -> tuple[ThumbnailSize, UploadedFile[Any]]:
    """Read the fields of a form and its one file."""
    fields = dict(request.POST.lists())
    refuse_bad_text({name: values[0] for name, values in fields.items()})
    errors = [FieldError(name, "is given twice; give it once") for name, values in fields.items() if len(values) > 1]
    files = [(name, file) for name, group in request.FILES.lists() for file in group]
    errors += [FieldError(name, "is not a known field; leave it out") for name, _ in files if name != "file"]
    pictures = [file for name, file in files if name == "file"]
    if len(pictures) != 1:
        errors.append(FieldError("file", "is required once, as a file; attach one picture"))
    elif not pictures[0].size:
        errors.append(FieldError("file", "is empty; attach a picture"))
    given: dict[str, Any] = {name: _number(values[0]) for name, values in fields.items() if name != "file"}
    try:
        size = ThumbnailSize.model_validate(given)
    except pydantic.ValidationError as error:
        raise invalid([*errors, *field_errors(error)]) from error
    if errors:
        raise invalid(errors)
    if (pictures[0].size or 0) > MAX_BYTES:
        raise Problem(413, f"file: has {pictures[0].size} bytes, {MAX_BYTES} are the most; send a smaller picture")
    return size, pictures[0]


def _number(text: str) -> int | str:
    """Return the integer a form's text means; other text stays and is refused by the schema."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else text
