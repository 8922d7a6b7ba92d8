"""Admin of pictures and thumbnails."""

from django.contrib import admin

from apps.images.models import Picture, Thumbnail
from switchyard.console.lists import CheckedQuery, JobLink
from switchyard.console.room_view import ReadOnly


@admin.register(Thumbnail)
class ThumbnailAdmin(ReadOnly, JobLink):
    """Thumbnails; the page of the job gives out the file."""

    list_display = ("picture", "box", "state", "refusal", "created_at", "finished_at")
    list_filter = ("state", "created_at")
    list_select_related = ("picture",)
    search_fields = ("=job_id", "picture__source_url", "picture__sent_name")
    search_help_text = "Job id, URL or file name"
    fields = readonly_fields = (
        "picture", "box", "size", "state", "refusal", "job_id", "created_at", "finished_at",
    )  # fmt: skip

    @admin.display(description="Is")
    def size(self, thumbnail: Thumbnail) -> str:
        made = thumbnail.result
        if not made:
            return "–"
        return f"{made['width']} × {made['height']}, {made['size_bytes']} bytes, {made['content_type']}"


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
