"""Admin of statements: list, download, make again."""

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

from apps.reports.actors import generate_report
from apps.reports.models import Report
from switchyard.console.list_queries import CheckedQuery
from switchyard.console.read_only import ReadOnly
from switchyard.jobs.downloads import download
from switchyard.jobs.passport.row_jobs import actor_link
from switchyard.jobs.services import enqueue_on_commit


@admin.register(Report)
class ReportAdmin(ReadOnly, CheckedQuery):
    """Statements as last written."""

    deletable = True
    list_display = ("month", "customer", "generated_at", "shown_size", "download_link")
    list_display_links = ("month", "customer")
    list_filter = ("month", "generated_at")
    list_select_related = ("customer",)
    search_fields = ("customer__name", "customer__company", "customer__email", "=month")
    search_help_text = "Customer or month (2026-10)"
    actions = ("regenerate",)
    fields = (
        "download_link", "customer", "month", "made_by", "filename", "content_type", "size_bytes", "file", "sha256",
        "checksum", "generated_at",
    )  # fmt: skip
    list_per_page = 50

    @admin.display(description="actor")
    def made_by(self, report: Report) -> str:
        """Link the actor that writes statements."""
        return actor_link(generate_report.actor_name)

    def get_urls(self) -> list[Any]:
        """Add the URL of the download."""
        view = self.admin_site.admin_view(self.download_view)
        return [path("<path:object_id>/download/", view, name="reports_report_download"), *super().get_urls()]

    def has_generate_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may make statements."""
        return request.user.has_perm("reports.generate_report")

    @admin.display(description="size", ordering="size_bytes")
    def shown_size(self, report: Report) -> str:
        """Return the file's size as text."""
        return filesizeformat(report.size_bytes)

    @admin.display(description="file")
    def download_link(self, report: Report) -> str:
        """Return a link to the PDF."""
        address = reverse("admin:reports_report_download", args=[report.pk])
        return format_html('<a href="{}">Download</a>', address)

    @admin.action(description="Regenerate report", permissions=["generate"])
    def regenerate(self, request: HttpRequest, reports: QuerySet[Report]) -> None:
        """Enqueue each chosen statement again. Unchanged content is not rewritten."""
        pairs = list(reports.values_list("customer_id", "month"))
        with transaction.atomic():
            for customer_id, month in pairs:
                enqueue_on_commit(generate_report, kwargs={"customer_id": customer_id, "month": month})
        done = "1 statement is" if len(pairs) == 1 else f"{len(pairs)} statements are"
        messages.success(request, f"{done} on the way; what has not changed keeps its file.")

    def download_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Serve the PDF."""
        report = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, report):
            raise PermissionDenied("The missing right is reports.view_report.")
        answer = report and download(report.file, filename=report.filename, content_type=report.content_type)
        if not answer:
            raise Http404("no such report, or its file was removed; regenerate it")
        return answer
