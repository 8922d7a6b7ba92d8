"""Admin of pictures and thumbnails, with previews and an action that makes thumbnails again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils.html import format_html

from apps.images import requests
from apps.images.models import Picture, Thumbnail, ThumbnailState
from switchyard.broker.errors import BrokerError
from switchyard.console.list_queries import CheckedQuery
from switchyard.console.read_only import ReadOnly
from switchyard.files.errors import StorageUnavailable
from switchyard.jobs.downloads import unavailable
from switchyard.jobs.passport.row_jobs import JobLinks
from switchyard.jobs.results import open_result

PREVIEW_TYPES = ("image/webp", "image/png")
# Width and height in CSS pixels.
SMALL_PREVIEW = (64, 40)
PREVIEW = (640, 480)


@admin.register(Thumbnail)
class ThumbnailAdmin(ReadOnly, JobLinks):
    """Thumbnails with previews."""

    list_display = ("small_preview", "source", "box", "state", "refusal", "created_at", "finished_at")
    list_display_links = ("small_preview", "source")
    list_filter = ("state", "created_at")
    list_select_related = ("picture",)
    search_fields = ("=job_id", "picture__source_url", "picture__sent_name")
    search_help_text = "Job id, URL or file name"
    fields = readonly_fields = (
        "preview", "picture", "box", "size", "state", "refusal", "job_id", "created_at", "finished_at",
    )  # fmt: skip
    actions = ("make_again",)
    list_per_page = 50

    def get_urls(self) -> list[Any]:
        """Add the URL of the previews."""
        shown = self.admin_site.admin_view(self.serve_preview)
        return [path("<int:pk>/preview/", shown, name="images_thumbnail_preview"), *super().get_urls()]

    def has_remake_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may enqueue thumbnails again."""
        return request.user.has_perm("images.remake_thumbnail")

    def serve_preview(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Serve a thumbnail: always an image that we encoded, never the received picture."""
        if not self.has_view_permission(request):
            raise PermissionDenied("The missing right is images.view_thumbnail.")
        thumbnail = Thumbnail.objects.filter(pk=pk, state=ThumbnailState.MADE).first()
        result = thumbnail.result if thumbnail and thumbnail.result else {}
        try:
            file = open_result(result.get("file", ""))
        except StorageUnavailable as error:
            return unavailable(error)
        if file is None or result["content_type"] not in PREVIEW_TYPES:
            raise Http404("this thumbnail has no file")
        with file:
            return HttpResponse(
                file.read(),
                content_type=result["content_type"],
                headers={"Content-Security-Policy": "default-src 'none'; sandbox"},
            )

    @admin.display(description="Preview")
    def small_preview(self, thumbnail: Thumbnail) -> str:
        """Return the thumbnail, small."""
        return _image(thumbnail, SMALL_PREVIEW)

    @admin.display(description="Preview")
    def preview(self, thumbnail: Thumbnail) -> str:
        """Return the thumbnail."""
        return _image(thumbnail, PREVIEW)

    @admin.display(description="Picture", ordering="picture")
    def source(self, thumbnail: Thumbnail) -> str:
        """Return the origin of the picture."""
        return str(thumbnail.picture)

    @admin.display(description="At most")
    def box(self, thumbnail: Thumbnail) -> str:
        """Return the requested size."""
        return f"{thumbnail.width} × {thumbnail.height}"

    @admin.display(description="Is")
    def size(self, thumbnail: Thumbnail) -> str:
        """Return the size and type of the thumbnail."""
        made = thumbnail.result
        if not made:
            return "–"
        return f"{made['width']} × {made['height']}, {made['size_bytes']} bytes, {made['content_type']}"

    @admin.action(description="Make again", permissions=["remake"])
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
    fields = readonly_fields = ("size", "state", "refusal", "finished_at")

    @admin.display(description="At most")
    def size(self, thumbnail: Thumbnail) -> str:
        """Return the requested size."""
        return f"{thumbnail.width} × {thumbnail.height}"


@admin.register(Picture)
class PictureAdmin(ReadOnly, CheckedQuery):
    """Received pictures with their verified format and size."""

    list_display = ("__str__", "format", "width", "height", "size_bytes", "owner_key", "created_at")
    list_filter = ("format", "created_at")
    search_fields = ("source_url", "sent_name", "=owner_key")
    search_help_text = "URL, file name or owner"
    fields = readonly_fields = (
        "source", "sent_type", "format", "width", "height", "size_bytes", "owner_key", "created_at",
    )  # fmt: skip
    inlines = (ThumbnailInline,)
    list_per_page = 50

    @admin.display(description="Source")
    def source(self, picture: Picture) -> str:
        """Return the origin of the picture."""
        return picture.shown_source


def _image(thumbnail: Thumbnail, box: tuple[int, int]) -> str:
    made = thumbnail.result
    if thumbnail.state != ThumbnailState.MADE or not made:
        return "–"
    scale = min(1.0, box[0] / made["width"], box[1] / made["height"])
    return format_html(
        '<img src="{}" alt="{}" width="{}" height="{}" loading="lazy">',
        reverse("admin:images_thumbnail_preview", args=[thumbnail.pk]),
        str(thumbnail),
        max(1, round(made["width"] * scale)),
        max(1, round(made["height"] * scale)),
    )
