"""Admin of statements: list, download, make again."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.reports.actors import generate_report
from apps.reports.models import Report
from apps.retention.stored_files import StoredFileAdmin


@admin.register(Report)
class ReportAdmin(StoredFileAdmin):
    """Statements as last written."""

    list_display = ("month", "customer", "generated_at", "shown_size", "download_link")
    list_display_links = ("month", "customer")
    list_filter = ("month", "generated_at")
    list_select_related = ("customer",)
    search_fields = ("customer__name", "customer__company", "customer__email", "=month")
    search_help_text = "Customer or month (2026-10)"
    actions = ("regenerate",)
    run_right = "reports.generate_report"
    fields = (
        "download_link", "customer", "month", "filename", "content_type", "size_bytes", "file", "sha256",
        "checksum", "generated_at",
    )  # fmt: skip

    @admin.action(description="Regenerate report", permissions=["run"])
    def regenerate(self, request: HttpRequest, reports: QuerySet[Report]) -> None:
        """Enqueue each chosen statement again. Unchanged content is not rewritten."""
        more = "; what has not changed keeps its file."
        self.enqueue(request, generate_report, reports.values("customer_id", "month"), "statement", more)
