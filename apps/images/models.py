"""Uploaded and fetched pictures, their thumbnails, and the retention of both."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from django.contrib import admin
from django.db import models
from django.db.models import BigIntegerField, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.utils import timezone

from apps.retention.kinds import RetentionKind


def stored_name(picture: Picture, sent_name: str) -> str:
    """Return a generated name for an uploaded file, independent of the sender's."""
    return f"pictures/{timezone.now():%Y/%m}/{uuid.uuid4().hex}"


class Picture(models.Model):
    """A received picture: an upload, or a URL to fetch. Its format and size are set once they are verified."""

    owner_key = models.CharField(max_length=64, db_index=True)
    request_id = models.UUIDField(null=True, unique=True, editable=False, help_text="Same for a repeated request.")
    source_url = models.CharField(max_length=2048, blank=True)
    file = models.FileField(upload_to=stored_name, blank=True)
    sent_name = models.CharField(max_length=255, blank=True, help_text="Claimed, never used as a path.")
    sent_type = models.CharField(max_length=100, blank=True, help_text="What its sender called it; never trusted.")
    format = models.CharField(max_length=4, blank=True)
    width = models.PositiveIntegerField(null=True, blank=True)
    height = models.PositiveIntegerField(null=True, blank=True)
    size_bytes = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.shown_source

    @property
    @admin.display(description="Source")
    def shown_source(self) -> str:
        """Displayed origin: the file name, or the URL without its query, which may hold a secret."""
        base, mark, _ = self.source_url.partition("?")
        return base + ("?…" if mark else "") or f"upload {self.sent_name or self.pk}"


class ThumbnailState(models.TextChoices):
    """State of a thumbnail."""

    WAITING = "waiting", "Waiting"
    MADE = "made", "Made"
    REFUSED = "refused", "Refused"


class Thumbnail(models.Model):
    """One thumbnail, at most ``width`` by ``height``. ``result`` is what its job returned."""

    picture = models.ForeignKey(Picture, on_delete=models.CASCADE, related_name="thumbnails")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    job_id = models.CharField(max_length=40, db_index=True)
    state = models.CharField(max_length=10, choices=ThumbnailState, default=ThumbnailState.WAITING, db_index=True)
    refusal = models.CharField(max_length=300, blank=True)
    result = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.box} of {self.picture}"

    @property
    @admin.display(description="At most")
    def box(self) -> str:
        return f"{self.width} × {self.height}"


def _size() -> int:
    """Return the bytes of all uploads that were verified, and of all thumbnails."""
    uploads = Picture.objects.exclude(file="").aggregate(total=Sum("size_bytes"))["total"] or 0
    of_one = Cast(KeyTextTransform("size_bytes", "result"), BigIntegerField())
    return uploads + (Thumbnail.objects.filter(result__isnull=False).aggregate(total=Sum(of_one))["total"] or 0)


def _files(pictures: Sequence[Picture]) -> Iterable[str]:
    """Return the files of some pictures: their uploads and their thumbnails."""
    made = Thumbnail.objects.filter(picture__in=pictures, result__isnull=False).values_list("result", flat=True)
    return [
        *(picture.file.name for picture in pictures if picture.file),
        *(result["file"] for result in made if result),
    ]


def _named(names: Sequence[str]) -> Iterable[str]:
    """Return those of some files that a picture or a thumbnail has."""
    uploads = Picture.objects.filter(file__in=names).values_list("file", flat=True)
    made = Thumbnail.objects.filter(result__file__in=names).values_list("result__file", flat=True)
    return [*uploads, *made]


RETENTION = RetentionKind(
    name="pictures",
    title="Pictures",
    content="Uploaded and fetched pictures with their thumbnails",
    model=Picture,
    size=_size,
    files=_files,
    named=_named,
    folder="pictures",
)
