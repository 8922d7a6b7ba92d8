"""Retention of pictures: rows with their uploads, their thumbnails, and the files of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db.models import BigIntegerField, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast

from apps.images.models import Picture, Thumbnail
from apps.retention.kinds import RetentionKind


def size() -> int:
    """Return the bytes of all uploads that were verified, and of all thumbnails."""
    uploads = Picture.objects.exclude(file="").aggregate(total=Sum("size_bytes"))["total"] or 0
    of_one = Cast(KeyTextTransform("size_bytes", "result"), BigIntegerField())
    return uploads + (Thumbnail.objects.filter(result__isnull=False).aggregate(total=Sum(of_one))["total"] or 0)


def files(pictures: Sequence[Picture]) -> Iterable[str]:
    """Return the files of some pictures: their uploads and their thumbnails."""
    made = Thumbnail.objects.filter(picture__in=pictures, result__isnull=False).values_list("result", flat=True)
    return [
        *(picture.file.name for picture in pictures if picture.file),
        *(result["file"] for result in made if result),
    ]


def named(names: Sequence[str]) -> Iterable[str]:
    """Return those of some files that a picture or a thumbnail has."""
    uploads = Picture.objects.filter(file__in=names).values_list("file", flat=True)
    made = Thumbnail.objects.filter(result__file__in=names).values_list("result__file", flat=True)
    return [*uploads, *made]


KIND = RetentionKind(
    name="pictures",
    title="Pictures",
    content="Uploaded and fetched pictures with their thumbnails",
    model=Picture,
    size=size,
    files=files,
    named=named,
    folder="pictures",
)
