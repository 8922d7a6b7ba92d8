"""Admin of exports: list, download, export again."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.exports.actors import export_dataset
from apps.exports.models import Export
from apps.retention.stored_files import StoredFileAdmin
from switchyard.console.lists import JobLink


@admin.register(Export)
class ExportAdmin(StoredFileAdmin, JobLink):
    """Completed exports."""

    list_display = ("filename", "dataset", "format", "row_count", "shown_size", "created_at", "download_link")
    list_filter = ("dataset", "format", "created_at")
    search_fields = ("filename", "=job_id")
    search_help_text = "File name or job id"
    actions = ("export_again",)
    run_right = "exports.run_export"
    fields = (
        "download_link", "job_id", "dataset", "format", "row_count", "filename", "content_type", "size_bytes", "file",
        "sha256", "created_at",
    )  # fmt: skip

    @admin.action(description="Export again", permissions=["run"])
    def export_again(self, request: HttpRequest, exports: QuerySet[Export]) -> None:
        """Enqueue the chosen exports anew, each dataset and format once."""
        columns = ("dataset", "format")
        self.enqueue(request, export_dataset, exports.order_by(*columns).values(*columns).distinct(), "export", ".")
