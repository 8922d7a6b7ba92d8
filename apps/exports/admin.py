"""Admin of exports: list, download, export again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.html import format_html

from apps.exports.actors import export_dataset
from apps.exports.models import Export
from switchyard.console.read_only import ReadOnly
from switchyard.jobs.downloads import download
from switchyard.jobs.passport.row_jobs import JobLinks
from switchyard.jobs.services import enqueue_on_commit


@admin.register(Export)
class ExportAdmin(ReadOnly, JobLinks):
    """Completed exports."""

    deletable = True
    list_display = ("filename", "dataset", "format", "row_count", "shown_size", "created_at", "download_link")
    list_filter = ("dataset", "format", "created_at")
    search_fields = ("filename", "=job_id")
    search_help_text = "File name or job id"
    actions = ("export_again",)
    fields = (
        "download_link", "job_id", "dataset", "format", "row_count", "filename", "content_type", "size_bytes", "file",
        "sha256", "created_at",
    )  # fmt: skip
    list_per_page = 50

    def get_urls(self) -> list[Any]:
        """Add the URL of the download."""
        view = self.admin_site.admin_view(self.download_view)
        return [path("<path:object_id>/download/", view, name="exports_export_download"), *super().get_urls()]

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may export."""
        return request.user.has_perm("exports.run_export")

    @admin.display(description="size", ordering="size_bytes")
    def shown_size(self, export: Export) -> str:
        """Return the file's size as text."""
        return filesizeformat(export.size_bytes)

    @admin.display(description="file")
    def download_link(self, export: Export) -> str:
        """Return a link to the file."""
        address = reverse("admin:exports_export_download", args=[export.pk])
        return format_html('<a href="{}">Download</a>', address)

    @admin.action(description="Export again", permissions=["run"])
    def export_again(self, request: HttpRequest, exports: QuerySet[Export]) -> None:
        """Enqueue the chosen exports anew, each dataset and format once."""
        pairs = sorted(set(exports.order_by().values_list("dataset", "format")))
        with transaction.atomic():
            for dataset, file_format in pairs:
                enqueue_on_commit(export_dataset, kwargs={"dataset": dataset, "format": file_format})
        messages.success(
            request, "1 export is on the way." if len(pairs) == 1 else f"{len(pairs)} exports are on the way."
        )

    def download_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Serve the file."""
        export = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, export):
            raise PermissionDenied("The missing right is exports.view_export.")
        answer = export and download(export.file, filename=export.filename, content_type=export.content_type)
        if not answer:
            raise Http404("no such export, or its file was removed; export again")
        return answer
