"""One thumbnail: fetch the picture, verify it, render it, store the result."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import structlog
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from apps.images import fetching
from apps.images.containers import read_facts
from apps.images.errors import PictureRefused
from apps.images.models import Picture, Thumbnail, ThumbnailState
from apps.images.rendering import render
from switchyard.jobs.results import save_file
from switchyard.jobs.services import report_progress
from switchyard.middleware.errors import PermanentFailure

STEPS = 3
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
        found = fetching.get(thumbnail.picture)
        report_progress(1, STEPS, "verifying")
        facts = read_facts(found.content)
        check_content_type(found.content_type, facts.format)
        check_name(found.path, facts.format, is_url=found.is_url)
        report_progress(2, STEPS, "rendering")
        rendered = render(found.content, facts, thumbnail.width, thumbnail.height)
        report_progress(3, STEPS, "keeping the result")
    except PictureRefused as refused:
        _finish(thumbnail, ThumbnailState.REFUSED, result=None, refusal=str(refused)[:300])
        raise
    name = f"thumbnail-{rendered.width}x{rendered.height}.{rendered.suffix}"
    stored = save_file(name, rendered.content, rendered.content_type)
    result = {**stored, "width": rendered.width, "height": rendered.height}
    with transaction.atomic():
        Picture.objects.filter(pk=thumbnail.picture_id).update(
            format=facts.format, width=facts.width, height=facts.height, size_bytes=len(found.content)
        )
        _finish(thumbnail, ThumbnailState.MADE, result=result, refusal="")
    return result


def check_content_type(claimed: str, format_name: str) -> None:
    """Refuse a picture whose content type, as sent, differs from its format; a type without a claim passes.

    Raises:
        PictureRefused: the claim is wrong.
    """
    essence = claimed.partition(";")[0].strip().lower()
    if essence not in UNSPECIFIC and SYNONYMS.get(essence, essence) != CONTENT_TYPES[format_name]:
        raise PictureRefused(f"came as {essence[:60]!r} and is {format_name}", "send its true content type")


def check_name(name: str, format_name: str, *, is_url: bool) -> None:
    """Refuse a picture whose name has the suffix of another file type. In a URL only that of a picture is a claim.

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
