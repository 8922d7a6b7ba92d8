"""The sample shop is the same for the same day, and made once."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db.models import F, Sum

from apps.shop import sample
from apps.shop.models import Customer, Invoice, InvoiceLine, InvoiceStatus, Payment

UNTIL = datetime.date(2026, 11, 20)

pytestmark = pytest.mark.django_db


def contents() -> list[list[tuple]]:
    return [list(model.objects.order_by("pk").values_list()) for model in (Customer, Invoice, InvoiceLine, Payment)]


def test_a_second_run_changes_nothing():
    first = sample.create(customers=10, until=UNTIL)
    before = contents()

    second = sample.create(customers=20, until=UNTIL)

    assert first and not second
    assert contents() == before


def test_the_same_day_makes_the_same_shop_and_another_day_another():
    def shop(until: datetime.date) -> list[tuple]:
        Payment.objects.all().delete()
        Invoice.objects.all().delete()
        Customer.objects.all().delete()
        sample.create(customers=5, until=until)
        return [
            *Customer.objects.order_by("email").values_list("name", "email", "created_at"),
            *Invoice.objects.order_by("number").values_list("number", "total", "status"),
            *Payment.objects.order_by("external_id").values_list("external_id", "amount", "received_at"),
        ]

    first, again, other = shop(UNTIL), shop(UNTIL), shop(UNTIL + datetime.timedelta(days=1))

    assert first == again
    assert first != other


def test_nothing_happens_after_the_last_day_nor_before_the_twelve_months():
    sample.create(customers=30, until=UNTIL)

    days = Invoice.objects.order_by("issued_on").values_list("issued_on", flat=True)
    assert datetime.date(2025, 11, 1) <= days[0]
    assert list(days)[-1] <= UNTIL
    assert not Payment.objects.filter(received_at__date__gt=UNTIL).exists()
    assert not Customer.objects.filter(created_at__date__gte=days[0]).exists()


def test_totals_are_the_sum_of_the_lines():
    sample.create(customers=10, until=UNTIL)

    sums = Invoice.objects.annotate(lines_sum=Sum(F("lines__quantity") * F("lines__unit_price")))
    assert all(Decimal(invoice.lines_sum).quantize(Decimal("0.01")) == invoice.total for invoice in sums)


def test_the_sample_holds_what_a_reconciliation_should_find():
    sample.create(customers=60, until=UNTIL)

    assert Payment.objects.filter(invoice=None, reference__icontains="inv").exists(), "payments to link"
    assert Payment.objects.filter(invoice=None).exclude(reference__icontains="inv").exists(), (
        "payments nobody can place"
    )
    assert set(Invoice.objects.values_list("status", flat=True)) == set(InvoiceStatus)
    assert Invoice.objects.filter(status=InvoiceStatus.OPEN, payments__invoice__isnull=False).exists(), (
        "a status that payments deny"
    )


def test_the_command_says_what_it_made_and_what_it_left_alone(capsys):
    call_command("seed")
    call_command("seed")

    made, left = capsys.readouterr().out.splitlines()
    assert made.startswith("shop: 300 customers, ") and made.endswith(" made")
    assert left.endswith("already there, nothing changed")
