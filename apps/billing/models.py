"""Results of reconciliations, by invoice, and received payment events."""

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from apps.retention.kinds import RetentionKind
from apps.shop import months
from apps.shop.models import Invoice, InvoiceStatus, Payment


def validate_month(month: str) -> None:
    """Refuse a month that does not exist, in an admin form.

    Raises:
        ValidationError: see ``apps.shop.months``.
    """
    try:
        months.bounds(month)
    except ValueError as error:
        raise ValidationError(str(error)) from error


class Reconciliation(models.Model):
    """Reconciliation of one month, as of its last run. ``finished_at`` is empty during a run."""

    month = models.CharField(max_length=7, unique=True, validators=[validate_month], help_text="YYYY-MM")
    matched = models.PositiveIntegerField(default=0, help_text="Invoices that were paid exactly.")
    unmatched = models.PositiveIntegerField(default=0, help_text="Invoices that were not.")
    corrected = models.PositiveIntegerField(default=0, help_text="Invoices whose status was wrong until a run.")
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-month"]

    def __str__(self) -> str:
        return self.month


class Outcome(models.TextChoices):
    """Comparison of an invoice's payments with its total; that of a void invoice counts as zero."""

    MATCHED = "matched", "Matched"
    MISSING = "missing", "Nothing paid"
    UNDERPAID = "underpaid", "Too little"
    OVERPAID = "overpaid", "Too much"


class ReconciliationEntry(models.Model):
    """One invoice in its month's reconciliation."""

    reconciliation = models.ForeignKey(Reconciliation, on_delete=models.CASCADE, related_name="entries")
    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="+")
    expected = models.DecimalField(max_digits=12, decimal_places=2)
    paid = models.DecimalField(max_digits=12, decimal_places=2)
    outcome = models.CharField(max_length=16, choices=Outcome, db_index=True)
    corrected_from = models.CharField(max_length=16, choices=InvoiceStatus, blank=True)
    corrected_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "reconciliation entries"
        constraints = [
            # A reconciliation is unique by its month.
            models.UniqueConstraint(fields=["reconciliation", "invoice"], name="billing_entry_once_a_month")
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id} in {self.reconciliation_id}"


class EventState(models.TextChoices):
    """State of a payment event. ``unplaced``: it names no invoice, so a person has to assign it."""

    RECEIVED = "received", "Received"
    APPLIED = "applied", "Applied"
    UNPLACED = "unplaced", "No such invoice"


class PaymentEvent(models.Model):
    """A payment provider's signed report of a payment; equal ``external_id``, equal event."""

    external_id = models.CharField(max_length=255, unique=True, help_text="The sender's webhook-id.")
    payload = models.JSONField()
    state = models.CharField(max_length=16, choices=EventState, default=EventState.RECEIVED, db_index=True)
    payment = models.ForeignKey(Payment, on_delete=models.SET_NULL, related_name="+", null=True, blank=True)
    job_id = models.CharField(max_length=36, blank=True)
    received_at = models.DateTimeField(default=timezone.now, db_index=True)
    applied_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.external_id


RETENTION = RetentionKind(
    name="payment_events",
    title="Payment events",
    content="Applied events of the payment provider; payments stay, and events without an invoice",
    model=PaymentEvent,
    age="received_at",
    ended=models.Q(state=EventState.APPLIED),
)
