"""Admin of billing: results of reconciliations, start of a run, payment events and their repetition."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from dramatiq.actor import Actor

from apps.billing.actors import apply_payment_event, reconcile_month
from apps.billing.models import EventState, Outcome, PaymentEvent, Reconciliation, ReconciliationEntry
from switchyard.broker.errors import BrokerError
from switchyard.console.admin_base import ModelAdmin, display
from switchyard.console.formatting import ago
from switchyard.console.read_only import ReadOnly
from switchyard.jobs.passport.row_jobs import JobLinks, actor_link
from switchyard.jobs.services import submit

OUTCOME_COLOURS = {
    Outcome.MATCHED: "success",
    Outcome.MISSING: "danger",
    Outcome.UNDERPAID: "warning",
    Outcome.OVERPAID: "warning",
}
STATE_COLOURS = {EventState.RECEIVED: "info", EventState.APPLIED: "success", EventState.UNPLACED: "danger"}


def send_each(
    model_admin: ModelAdmin, request: HttpRequest, actor: Actor[Any, Any], calls: list[dict[str, Any]], verb: str
) -> None:
    """Enqueue one job for each call when the transaction commits, and report the outcome to the user."""

    def send() -> None:
        sent = []
        try:
            for kwargs in calls:
                sent.append(submit(actor, kwargs=kwargs))
        except BrokerError as error:
            model_admin.message_user(request, f"{len(sent)} of {len(calls)} sent: {error}", messages.ERROR)
        else:
            names = f" (job {', '.join(sent[:10])}{' …' if len(sent) > 10 else ''})" if sent else ""
            model_admin.message_user(request, f"{len(sent)} {verb}{names}", messages.SUCCESS)

    transaction.on_commit(send)


@admin.register(Reconciliation)
class ReconciliationAdmin(ReadOnly, ModelAdmin):
    """Reconciled months. Adding a month reconciles it."""

    menu_title = "Reconciled months"
    list_display = ["month", "matched", "unmatched", "corrected", "started_at", "finished_at", "invoices"]
    list_per_page = 50
    search_fields = ["month"]
    search_help_text = "Month (2026-10)"
    readonly_fields = ["matched", "unmatched", "corrected", "started_at", "finished_at"]
    actions = ["reconcile_again"]
    sending_acts = ("reconcile_again",)
    main_act = "reconcile_again"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may start a reconciliation, the same permission."""
        return self.has_run_permission(request)

    def get_fields(self, request: HttpRequest, obj: Reconciliation | None = None) -> Any:
        """Return the fields; a new month has no results yet."""
        return [*super().get_fields(request, obj), "invoices", "made_by"] if obj else ["month"]

    def heading(self, row: Reconciliation) -> str:
        """Return the page's heading."""
        return f"Reconciliation of {row.month}"

    def facts(self, row: Reconciliation) -> list[tuple[str, str]]:
        """Return the invoices by outcome, and how long ago the last run ended."""
        ended = ago(row.finished_at) if row.finished_at else "Not yet"
        found = (row.matched, "paid exactly"), (row.unmatched, "not paid exactly"), (row.corrected, "corrected")
        return [*((f"{count:,}", f"invoices {how}") for count, how in found), (ended, "last run ended")]

    @display(description="actor")
    def made_by(self, reconciliation: Reconciliation) -> str:
        """Link the actor that reconciles a month."""
        return actor_link(reconcile_month.actor_name)

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may start a reconciliation."""
        return request.user.has_perm("billing.add_reconciliation")

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm[Any], change: bool) -> None:
        """Save the month and enqueue its reconciliation."""
        super().save_model(request, obj, form, change)
        self._enqueue(request, [obj.month])

    @admin.action(description="Reconcile this month", permissions=["run"])
    def reconcile_again(self, request: HttpRequest, queryset: QuerySet[Reconciliation]) -> None:
        """Enqueue a reconciliation of each chosen month."""
        self._enqueue(request, list(queryset.values_list("month", flat=True)))

    @display(description="Invoices")
    def invoices(self, reconciliation: Reconciliation) -> str:
        """Link to the month's entries."""
        address = reverse("admin:billing_reconciliationentry_changelist")
        return format_html(
            '<a class="sy-link" href="{}?reconciliation__id__exact={}">Show</a>', address, reconciliation.pk
        )

    def _enqueue(self, request: HttpRequest, months: list[str]) -> None:
        send_each(self, request, reconcile_month, [{"month": month} for month in months], "reconciling")


@admin.register(ReconciliationEntry)
class ReconciliationEntryAdmin(ReadOnly, ModelAdmin):
    """Reconciled invoices and their outcomes."""

    menu_title = "Reconciled invoices"
    list_display = ["invoice", "reconciliation", "expected", "paid", "shown_outcome", "corrected_from", "corrected_at"]
    list_per_page = 50
    list_filter = ["outcome", "corrected_from", "reconciliation"]
    list_select_related = ["invoice", "reconciliation"]
    search_fields = ["invoice__number", "invoice__customer__name", "invoice__customer__company"]
    search_help_text = "Invoice number, customer or company"
    badge = "shown_outcome"

    def heading(self, row: ReconciliationEntry) -> str:
        """Return the page's heading."""
        return f"{row.invoice} in {row.reconciliation}"

    def facts(self, row: ReconciliationEntry) -> list[tuple[str, str]]:
        """Return what was due and what was paid."""
        return [(f"{row.expected:,} {row.invoice.currency}", "expected"), (f"{row.paid:,}", "paid")]

    @display(description="Outcome", ordering="outcome", label=OUTCOME_COLOURS)
    def shown_outcome(self, entry: ReconciliationEntry) -> tuple[str, str]:
        """Return the outcome and its label."""
        return entry.outcome, entry.get_outcome_display()


@admin.register(PaymentEvent)
class PaymentEventAdmin(ReadOnly, JobLinks):
    """Received payment events."""

    list_display = ["external_id", "shown_state", "payment", "received_at", "applied_at"]
    list_per_page = 50
    list_filter = ["state", "received_at"]
    list_select_related = ["payment"]
    search_fields = ["external_id", "payment__external_id", "job_id"]
    search_help_text = "Id of the event or payment, or job id"
    date_hierarchy = "received_at"
    actions = ["apply_again"]
    sending_acts = ("apply_again",)
    badge = "shown_state"
    main_act = "apply_again"
    code_fields = ["external_id"]

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may apply events."""
        return request.user.has_perm("billing.change_paymentevent")

    @admin.action(description="Apply again what was not applied", permissions=["run"])
    def apply_again(self, request: HttpRequest, queryset: QuerySet[PaymentEvent]) -> None:
        """Enqueue the chosen events that were not applied, for example after their invoice was created."""
        waiting = queryset.exclude(state=EventState.APPLIED).values_list("pk", flat=True)
        send_each(self, request, apply_payment_event, [{"event_id": pk} for pk in waiting], "applying")

    @display(description="State", ordering="state", label=STATE_COLOURS)
    def shown_state(self, event: PaymentEvent) -> tuple[str, str]:
        """Return the state and its label."""
        return event.state, event.get_state_display()
