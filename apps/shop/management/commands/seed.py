"""``manage.py seed``: fill an empty shop with sample data."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from apps.shop import sample
from apps.shop.models import Customer, Invoice, Payment
from switchyard.console.commands import as_command_error


class Command(BaseCommand):
    """Create sample customers, invoices and payments; a shop that has customers is left unchanged."""

    help = "Fill an empty shop with sample customers, invoices and payments of the last twelve months."

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error("shop"):
            created = sample.create(until=timezone.now().date())
            customers, invoices, payments = (model.objects.count() for model in (Customer, Invoice, Payment))
        verb = "made" if created else "already there, nothing changed"
        self.stdout.write(f"shop: {customers} customers, {invoices} invoices, {payments} payments {verb}")
