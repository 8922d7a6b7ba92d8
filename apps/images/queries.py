"""Reads of the images product."""

from __future__ import annotations

from apps.images.models import Thumbnail


def find_thumbnail(thumbnail_id: int) -> Thumbnail | None:
    """Return a thumbnail with its picture, or ``None``."""
    return Thumbnail.objects.select_related("picture").filter(pk=thumbnail_id).first()
