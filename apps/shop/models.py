"""Customers, invoices and payments."""

from decimal import Decimal

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

CENT = Decimal("0.01")


class Customer(models.Model):
    """A customer."""

    name = models.CharField(max_length=120)
    email = models.EmailField(unique=True)
    company = models.CharField(max_length=120, blank=True)
    country = models.CharField(max_length=2, help_text="Two letters, ISO 3166-1, for example DE.")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.company})" if self.company else self.name


class InvoiceStatus(models.TextChoices):
    """Payment status of an invoice. Payments never change a void one."""

    OPEN = "open", "Open"
    PARTLY_PAID = "partly_paid", "Partly paid"
    PAID = "paid", "Paid"
    OVERPAID = "overpaid", "Overpaid"
    VOID = "void", "Void"


class Invoice(models.Model):
    """An invoice. ``total`` is the sum of its lines, stored so that lists need not load them."""

    number = models.CharField(max_length=32, unique=True)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="invoices")
    issued_on = models.DateField(db_index=True)
    due_on = models.DateField()
    currency = models.CharField(max_length=3, default="EUR")
    total = models.DecimalField(max_digits=12, decimal_places=2)
    status = models.CharField(max_length=16, choices=InvoiceStatus, default=InvoiceStatus.OPEN, db_index=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["customer", "issued_on"], name="shop_invoice_statement")]

    def __str__(self) -> str:
        return self.number


class InvoiceLine(models.Model):
    """One position of an invoice."""

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="lines")
    description = models.CharField(max_length=200)
    quantity = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    unit_price = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.description

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.unit_price


class PaymentMethod(models.TextChoices):
    """Payment methods."""

    TRANSFER = "transfer", "Bank transfer"
    CARD = "card", "Card"
    DIRECT_DEBIT = "direct_debit", "Direct debit"


class Payment(models.Model):
    """A received payment. ``invoice`` is empty until a person or a reconciliation assigns it."""

    external_id = models.CharField(max_length=64, unique=True, help_text="The payment provider's id of this payment.")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="payments")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="payments", null=True, blank=True)
    reference = models.CharField(max_length=140, blank=True, help_text="What the payer wrote.")
    amount = models.DecimalField(max_digits=12, decimal_places=2, validators=[MinValueValidator(CENT)])
    currency = models.CharField(max_length=3, default="EUR")
    method = models.CharField(max_length=16, choices=PaymentMethod, default=PaymentMethod.TRANSFER)
    received_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["customer", "received_at"], name="shop_payment_statement")]

    def __str__(self) -> str:
        return self.external_id
