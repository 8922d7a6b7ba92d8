"""One thumbnail: fetch the picture, verify it, render it, store the result."""

from pathlib import PurePosixPath
from typing import Any

import structlog
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from apps.images.containers import read_facts
from apps.images.errors import FetchFailed, PictureRefused
from apps.images.models import Picture, Thumbnail, ThumbnailState
from apps.images.rendering import render
from apps.outbound.addresses import read_url
from apps.outbound.errors import ForbiddenAddress, OutboundError, TooLarge
from apps.outbound.http import send
from switchyard.jobs.results import save_file
from switchyard.jobs.services import report_progress
from switchyard.middleware.errors import PermanentFailure

STEPS = 3
MAX_BYTES = 20 * 1024 * 1024
DEADLINE_S = 20.0
# Client errors that may be gone in a later attempt.
PASSING = (408, 425, 429)
CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
# Content types without a claim, and synonyms of the accepted ones.
UNSPECIFIC = ("", "application/octet-stream", "binary/octet-stream", "image/*")
SYNONYMS = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/apng": "image/png",
}
NAMED = {"PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WEBP": (".webp",), "GIF": (".gif",)}
SUFFIXES = {suffix: format_name for format_name, suffixes in NAMED.items() for suffix in suffixes}

log = structlog.get_logger(__name__)


def make(thumbnail_id: int) -> dict[str, Any]:
    """Make a thumbnail and return its result: the stored file with ``width`` and ``height``.

    An existing thumbnail is not made again.

    Raises:
        PictureRefused: it is no picture, contradicts its claims, or is too costly to open; retrying does not help.
        FetchFailed: the picture could not be fetched in this attempt.
        PermanentFailure: there is no such thumbnail.
        Cancelled: the job was cancelled between two steps.
    """
    thumbnail = Thumbnail.objects.select_related("picture").filter(pk=thumbnail_id).first()
    if thumbnail is None:
        raise PermanentFailure(f"thumbnail {thumbnail_id}: does not exist; it was deleted, discard this job")
    made: dict[str, Any] | None = thumbnail.result
    if thumbnail.state == ThumbnailState.MADE and made and default_storage.exists(made["file"]):
        log.info("thumbnail_was_made_before", thumbnail_id=thumbnail_id)
        return made
    try:
        report_progress(0, STEPS, "getting the picture")
        url = thumbnail.picture.source_url
        content, content_type, path = _fetched(url) if url else _uploaded(thumbnail.picture)
        report_progress(1, STEPS, "verifying")
        facts = read_facts(content)
        check_content_type(content_type, facts.format)
        check_name(path, facts.format, is_url=bool(url))
        report_progress(2, STEPS, "rendering")
        rendered = render(content, facts, thumbnail.width, thumbnail.height)
        report_progress(3, STEPS, "keeping the result")
    except PictureRefused as refused:
        _finish(thumbnail, ThumbnailState.REFUSED, result=None, refusal=str(refused)[:300])
        raise
    name = f"thumbnail-{rendered.width}x{rendered.height}.{rendered.suffix}"
    stored = save_file(name, rendered.content, rendered.content_type)
    result = {**stored, "width": rendered.width, "height": rendered.height}
    with transaction.atomic():
        Picture.objects.filter(pk=thumbnail.picture_id).update(
            format=facts.format, width=facts.width, height=facts.height, size_bytes=len(content)
        )
        _finish(thumbnail, ThumbnailState.MADE, result=result, refusal="")
    return result


def _fetched(url: str) -> tuple[bytes, str, str]:
    """Fetch a picture; return it, and what its server says of it: its content type, and the path of its URL."""
    try:
        response = send("GET", url, headers={"accept": "image/*"}, deadline_s=DEADLINE_S, max_bytes=MAX_BYTES)
        place = read_url(url)
    except ForbiddenAddress as error:
        raise PictureRefused(f"its URL {error.fact}", error.remedy) from error
    except TooLarge as error:
        raise PictureRefused(error.fact, "link to a smaller one") from error
    except OutboundError as error:
        raise FetchFailed(read_url(url).host, error.fact) from error
    status = response.status
    if 300 <= status < 400:
        raise PictureRefused(f"{place.host} answered {status}, a redirect", "link to the picture itself")
    if 400 <= status < 500 and status not in PASSING:
        raise PictureRefused(f"{place.host} answered {status}", "link to a picture that is there")
    if status != 200:
        raise FetchFailed(place.host, f"answered {status}")
    return response.body, response.headers.get("content-type", ""), place.target.partition("?")[0]


def _uploaded(picture: Picture) -> tuple[bytes, str, str]:
    """Read a stored upload; return it, and what its sender called it: its content type and its name."""
    try:
        with picture.file.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, ValueError):
        raise PictureRefused("its uploaded file is gone", "send it again") from None
    if len(content) > MAX_BYTES:
        raise PictureRefused(f"is larger than {MAX_BYTES} bytes", "send a smaller one")
    return content, picture.sent_type, picture.sent_name


def check_content_type(claimed: str, format_name: str) -> None:
    """Refuse a picture whose content type differs from its format.

    Args:
        claimed: Header as sent, parameters included; a type without a claim passes.

    Raises:
        PictureRefused: the claim is wrong.
    """
    essence = claimed.partition(";")[0].strip().lower()
    if essence not in UNSPECIFIC and SYNONYMS.get(essence, essence) != CONTENT_TYPES[format_name]:
        raise PictureRefused(f"came as {essence[:60]!r} and is {format_name}", "send its true content type")


def check_name(name: str, format_name: str, *, is_url: bool) -> None:
    """Refuse a picture whose name has the suffix of another file type.

    Args:
        is_url: The name is a URL's path, where suffixes of other types (``.php``) are no claim.

    Raises:
        PictureRefused: the claim is wrong.
    """
    suffix = PurePosixPath(name).suffix.lower()
    claimed = SUFFIXES.get(suffix)
    if claimed == format_name or (claimed is None and (is_url or not suffix)):
        return
    raise PictureRefused(f"is named {suffix[:20]!r} and is {format_name}", "give it its true ending")


def _finish(thumbnail: Thumbnail, state: ThumbnailState, **fields: Any) -> None:
    Thumbnail.objects.filter(pk=thumbnail.pk).update(state=state, finished_at=timezone.now(), **fields)
