"""``manage.py seed``: fill an empty shop with sample data."""

from __future__ import annotations

import argparse
import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from apps.shop import sample
from apps.shop.models import Customer, Invoice, Payment
from switchyard.console.commands import as_command_error, show_examples

MOST_CUSTOMERS = 100_000


EXAMPLES = """examples:
  manage.py seed --customers 50 --until 2026-11-20"""


class Command(BaseCommand):
    """Create sample customers, invoices and payments; a shop that has customers is left unchanged."""

    help = "Fill an empty shop with sample customers, invoices and payments of the last twelve months."

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        parser.add_argument("--customers", type=_count, default=300, metavar="N", help="how many (default: 300)")
        parser.add_argument(
            "--seed", type=int, default=1, metavar="N", help="same seed and day, same shop (default: 1)"
        )
        parser.add_argument(
            "--until", type=_day, default=None, metavar="DAY", help="last day, YYYY-MM-DD (default: today, UTC)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        until = options["until"] or timezone.now().date()
        with as_command_error("shop"):
            created = sample.create(customers=options["customers"], seed=options["seed"], until=until)
            customers, invoices, payments = (model.objects.count() for model in (Customer, Invoice, Payment))
        verb = "made" if created else "already there, nothing changed"
        self.stdout.write(f"shop: {customers} customers, {invoices} invoices, {payments} payments {verb}")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_CUSTOMERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1 to {MOST_CUSTOMERS}; use for example 300")
    return int(text)


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write it as for example 2026-11-20") from None
