"""Admin of billing: results of reconciliations, start of a run, and payment events."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from apps.billing.actors import reconcile_month
from apps.billing.models import PaymentEvent, Reconciliation, ReconciliationEntry
from switchyard.broker.errors import BrokerError
from switchyard.console.lists import CheckedQuery, JobLink
from switchyard.console.room_view import ReadOnly
from switchyard.jobs.services import submit


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnly, CheckedQuery):
    """Reconciled months. Adding a month reconciles it."""

    list_display = ["month", "matched", "unmatched", "corrected", "started_at", "finished_at", "invoices"]
    search_fields = ["month"]
    search_help_text = "Month (2026-10)"
    readonly_fields = ["matched", "unmatched", "corrected", "started_at", "finished_at"]
    actions = ["reconcile_again"]
    run_right = "billing.add_reconciliation"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_run_permission(request)

    def get_fields(self, request: HttpRequest, obj: Reconciliation | None = None) -> Any:
        """Return the fields; a new month has no results yet."""
        return [*super().get_fields(request, obj), "invoices"] if obj else ["month"]

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm[Any], change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._enqueue(request, [obj.month])

    @admin.action(description="Reconcile this month", permissions=["run"])
    def reconcile_again(self, request: HttpRequest, queryset: QuerySet[Reconciliation]) -> None:
        self._enqueue(request, list(queryset.values_list("month", flat=True)))

    @admin.display(description="Invoices")
    def invoices(self, reconciliation: Reconciliation) -> str:
        address = reverse("admin:billing_reconciliationentry_changelist")
        return format_html('<a href="{}?reconciliation__id__exact={}">Show</a>', address, reconciliation.pk)

    def _enqueue(self, request: HttpRequest, months: list[str]) -> None:
        """Enqueue one job for each month when the transaction commits, and report the outcome to the user."""

        def send() -> None:
            sent = []
            try:
                for month in months:
                    sent.append(submit(reconcile_month, kwargs={"month": month}))
            except BrokerError as error:
                self.message_user(request, f"{len(sent)} of {len(months)} sent: {error}", messages.ERROR)
            else:
                self.message_user(request, f"{len(sent)} reconciling (job {', '.join(sent)})", messages.SUCCESS)

        transaction.on_commit(send)


@admin.register(ReconciliationEntry)
class ReconciliationEntryAdmin(ReadOnly, CheckedQuery):
    """Reconciled invoices and their outcomes."""

    list_display = ["invoice", "reconciliation", "expected", "paid", "outcome", "corrected_from", "corrected_at"]
    list_filter = ["outcome", "corrected_from", "reconciliation"]
    list_select_related = ["invoice", "reconciliation"]
    search_fields = ["invoice__number", "invoice__customer__name", "invoice__customer__company"]
    search_help_text = "Invoice number, customer or company"


@admin.register(PaymentEvent)
class PaymentEventAdmin(ReadOnly, JobLink):
    """Received payment events."""

    list_display = ["external_id", "state", "payment", "received_at", "applied_at"]
    list_filter = ["state", "received_at"]
    list_select_related = ["payment"]
    search_fields = ["external_id", "payment__external_id", "job_id"]
    search_help_text = "Id of the event or payment, or job id"
    date_hierarchy = "received_at"
