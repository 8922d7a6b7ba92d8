"""Requests for thumbnails: each creates its rows and its job in one transaction."""

from __future__ import annotations

import re
from typing import Any

from django.core.files.base import File
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction

from apps.images.actors import make_thumbnail
from apps.images.models import Picture, Thumbnail
from switchyard.api.request_jobs import is_repeated_request, row_id_of_request
from switchyard.jobs.services import enqueue_on_commit

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def request_by_upload(owner_key: str, file: UploadedFile[Any], width: int, height: int) -> str:
    """Store an uploaded picture under a generated name, enqueue its thumbnail and return the job's id."""
    return request(
        owner_key,
        width,
        height,
        file=File(file, name="picture"),  # Django skips a file without a name
        sent_name=_UNPRINTABLE.sub("", file.name or "")[-255:],
        sent_type=_UNPRINTABLE.sub("", file.content_type or "")[:100],
    )


@transaction.atomic
def request(owner_key: str, width: int, height: int, **columns: Any) -> str:
    """Enqueue a thumbnail of a picture with these columns and return the job's id. The caller has validated a URL."""
    request_id = row_id_of_request("picture")
    if request_id is not None and is_repeated_request():
        known = Thumbnail.objects.select_related("picture").filter(picture__request_id=request_id).first()
        if known is not None:
            return _enqueue(known, job_id=known.job_id)  # unless that happened
    picture = Picture.objects.create(owner_key=owner_key, request_id=request_id, **columns)
    thumbnail = Thumbnail.objects.create(picture=picture, width=width, height=height)
    thumbnail.job_id = _enqueue(thumbnail)
    thumbnail.save(update_fields=["job_id"])
    return thumbnail.job_id


def _enqueue(thumbnail: Thumbnail, *, job_id: str | None = None) -> str:
    return enqueue_on_commit(
        make_thumbnail, owner=thumbnail.picture.owner_key, job_id=job_id, kwargs={"thumbnail_id": thumbnail.pk}
    )
