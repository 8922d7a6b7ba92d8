"""The outbox in Django's admin: messages that are committed and not in the broker yet, with why they wait."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.console.formatting import duration
from switchyard.console.links import admin_site, job_url
from switchyard.console.lists import CheckedQuery
from switchyard.console.room_view import ReadOnly
from switchyard.outbox.models import OutboxRow
from switchyard.outbox.rows import is_behind

# Until then its own process or the relay sends it.
SENT_MS = 2_000


@admin.register(OutboxRow, site=admin_site())
class OutboxRowAdmin(ReadOnly, CheckedQuery, admin.ModelAdmin):
    """Rows of the default database, oldest first. A refused message is no row any more, but a dead letter."""

    list_display = ("job", "queue", "age", "waits_for", "due")
    list_display_links = None
    list_filter = ("queue",)
    search_fields = ("=job_id",)
    fields = readonly_fields = ("job_id", "queue", "age", "waits_for", "due")  # an order key holds an argument
    ordering = ("id",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("switchyard_jobs.view_job"))

    has_module_permission = has_view_permission

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxRow]:
        return super().get_queryset(request).defer("body")

    def job(self, row: OutboxRow) -> str:
        return format_html('<a href="{}">{}</a>', job_url(row.job_id), row.job_id)

    def age(self, row: OutboxRow) -> str:
        return duration(max(now_ms() - row.created_ms, 0))

    def waits_for(self, row: OutboxRow) -> str:
        """Return why it is here still."""
        if is_behind(row):
            return "an earlier message of its order"
        if now_ms() - row.created_ms < SENT_MS:
            return "the process that committed it, or the relay"
        return "room in its queue, the broker, or the relay of a scheduler: see manage.py switchyard doctor"

    def due(self, row: OutboxRow) -> str:
        return f"{datetime_of(row.due_ms):%Y-%m-%d %H:%M:%S} UTC" if row.due_ms else "at once"
