"""Admin of pictures and thumbnails, and an action that makes thumbnails again."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.images import requests
from apps.images.models import Picture, Thumbnail
from switchyard.broker.errors import BrokerError
from switchyard.console.lists import CheckedQuery
from switchyard.console.room_view import ReadOnly
from switchyard.jobs.passport.row_jobs import JobLinks


@admin.register(Thumbnail)
class ThumbnailAdmin(ReadOnly, JobLinks):
    """Thumbnails; the page of the job gives out the file."""

    list_display = ("picture", "box", "state", "refusal", "created_at", "finished_at")
    list_filter = ("state", "created_at")
    list_select_related = ("picture",)
    search_fields = ("=job_id", "picture__source_url", "picture__sent_name")
    search_help_text = "Job id, URL or file name"
    fields = readonly_fields = (
        "picture", "box", "size", "state", "refusal", "job_id", "created_at", "finished_at",
    )  # fmt: skip
    actions = ("make_again",)
    run_right = "images.remake_thumbnail"
    list_per_page = 50

    @admin.display(description="Is")
    def size(self, thumbnail: Thumbnail) -> str:
        made = thumbnail.result
        if not made:
            return "–"
        return f"{made['width']} × {made['height']}, {made['size_bytes']} bytes, {made['content_type']}"

    @admin.action(description="Make again", permissions=["run"])
    def make_again(self, request: HttpRequest, thumbnails: QuerySet[Thumbnail]) -> None:
        """Enqueue a new job for each chosen thumbnail; it fetches the picture again."""
        try:
            jobs = requests.make_again(thumbnails.values_list("pk", flat=True))
        except BrokerError as error:
            messages.error(request, f"Not all were sent: {error}")
        else:
            messages.success(request, f"{len(jobs)} on the way, each in a new job.")


class ThumbnailInline(ReadOnly, admin.StackedInline):
    """The thumbnails of a picture, on its page."""

    model = Thumbnail
    extra = 0
    show_change_link = True
    fields = readonly_fields = ("box", "state", "refusal", "finished_at")


@admin.register(Picture)
class PictureAdmin(ReadOnly, CheckedQuery):
    """Received pictures with their verified format and size."""

    list_display = ("__str__", "format", "width", "height", "size_bytes", "owner_key", "created_at")
    list_filter = ("format", "created_at")
    search_fields = ("source_url", "sent_name", "=owner_key")
    search_help_text = "URL, file name or owner"
    fields = readonly_fields = (
        "shown_source", "sent_type", "format", "width", "height", "size_bytes", "owner_key", "created_at",
    )  # fmt: skip
    inlines = (ThumbnailInline,)
    list_per_page = 50
