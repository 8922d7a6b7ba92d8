"""Admin of statements: list, download, make again."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.reports.actors import generate_report
from apps.reports.models import Report
from apps.retention.stored_files import StoredFileAdmin
from switchyard.jobs.services import enqueue_on_commit


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
        pairs = list(reports.values_list("customer_id", "month"))
        with transaction.atomic():
            for customer_id, month in pairs:
                enqueue_on_commit(generate_report, kwargs={"customer_id": customer_id, "month": month})
        done = "1 statement is" if len(pairs) == 1 else f"{len(pairs)} statements are"
        messages.success(request, f"{done} on the way; what has not changed keeps its file.")
