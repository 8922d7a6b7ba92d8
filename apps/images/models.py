"""Uploaded and fetched pictures, and their thumbnails."""

from __future__ import annotations

import uuid

from django.contrib import admin
from django.db import models
from django.utils import timezone


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
        permissions = [("remake_thumbnail", "Can have a thumbnail made again")]

    def __str__(self) -> str:
        return f"{self.box} of {self.picture}"

    @property
    @admin.display(description="At most")
    def box(self) -> str:
        return f"{self.width} × {self.height}"
