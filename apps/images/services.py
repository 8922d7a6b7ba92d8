"""Writes of the images product: outcomes of thumbnails."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.images.containers import Facts
from apps.images.models import Picture, Thumbnail, ThumbnailState


@transaction.atomic
def mark_made(thumbnail: Thumbnail, facts: Facts, size_bytes: int, result: dict[str, Any]) -> None:
    """Store the picture's actual format and size, and the result."""
    Picture.objects.filter(pk=thumbnail.picture_id).update(
        format=facts.format, width=facts.width, height=facts.height, size_bytes=size_bytes
    )
    _finish(thumbnail, ThumbnailState.MADE, result=result, refusal="")


def mark_refused(thumbnail: Thumbnail, refusal: str) -> None:
    """Store the reason why no thumbnail was made."""
    _finish(thumbnail, ThumbnailState.REFUSED, result=None, refusal=refusal[:300])


def _finish(thumbnail: Thumbnail, state: ThumbnailState, **fields: Any) -> None:
    Thumbnail.objects.filter(pk=thumbnail.pk).update(state=state, finished_at=timezone.now(), **fields)
