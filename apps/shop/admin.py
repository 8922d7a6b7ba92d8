"""Admin of the shop. Each list takes a fixed number of queries."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from apps.shop.models import Customer, Invoice, InvoiceLine, Payment
from switchyard.console.lists import CheckedQuery
from switchyard.console.room_view import ReadOnly


@admin.register(Customer)
class CustomerAdmin(CheckedQuery):
    """Customers, with their invoice counts."""

    list_display = ["name", "company", "country", "email", "invoice_count", "created_at"]
    list_filter = ["country"]
    search_fields = ["name", "company", "email"]
    search_help_text = "Name, company or email"
    date_hierarchy = "created_at"
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Customer]:
        """Count the invoices in the list's own query."""
        customers: QuerySet[Customer] = super().get_queryset(request)
        return customers.annotate(_invoice_count=Count("invoices"))

    @admin.display(description="Invoices", ordering="_invoice_count")
    def invoice_count(self, customer: Any) -> int:
        return int(customer._invoice_count)


class InvoiceLineInline(admin.StackedInline):
    """The lines of an invoice, on its page."""

    model = InvoiceLine
    extra = 0


class PaymentInline(ReadOnly, admin.StackedInline):
    """The payments of an invoice, on its page. They are added on their own page."""

    model = Payment
    extra = 0
    fields = readonly_fields = ("external_id", "amount", "currency", "method", "received_at")


@admin.register(Invoice)
class InvoiceAdmin(CheckedQuery):
    """Invoices with their lines and payments."""

    list_display = ["number", "customer", "issued_on", "due_on", "total", "currency", "status"]
    list_filter = ["status", "currency", "issued_on"]
    list_select_related = ["customer"]
    search_fields = ["number", "customer__name", "customer__company", "customer__email"]
    search_help_text = "Number, customer, company or email"
    autocomplete_fields = ["customer"]
    date_hierarchy = "issued_on"
    ordering = ["-issued_on", "-id"]
    inlines = [InvoiceLineInline, PaymentInline]
    list_per_page = 50


@admin.register(Payment)
class PaymentAdmin(CheckedQuery):
    """Payments, linked to their invoice or not."""

    list_display = ["external_id", "customer", "invoice", "shown_amount", "method", "reference", "received_at"]
    list_filter = ["method", "currency", ("invoice", admin.EmptyFieldListFilter), "received_at"]
    list_select_related = ["customer", "invoice"]
    search_fields = ["external_id", "reference", "customer__name", "customer__company", "invoice__number"]
    search_help_text = "Payment id, reference, customer or invoice"
    autocomplete_fields = ["customer", "invoice"]
    date_hierarchy = "received_at"
    ordering = ["-received_at", "-id"]
    list_per_page = 50

    @admin.display(description="Amount", ordering="amount")
    def shown_amount(self, payment: Payment) -> str:
        return f"{payment.amount:,} {payment.currency}"
