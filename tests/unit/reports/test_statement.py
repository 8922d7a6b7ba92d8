"""A statement adds up, as it stood when its month ended."""

import pytest

from apps.reports import services, statement
from apps.shop.models import InvoiceStatus
from tests.factories.shop import make_customer, make_invoice, make_payment

pytestmark = pytest.mark.django_db
MONTH = "2026-10"


@pytest.fixture
def ada():
    return make_customer(name="Ada", company="Engines Ltd")


def test_what_was_owed_and_invoiced_less_what_was_paid_is_what_is_owed(ada):
    make_payment(
        make_invoice(ada, total="300.00", issued_on="2026-08-03"), amount="100.00", received_at="2026-09-01T00:00Z"
    )
    make_payment(
        make_invoice(ada, total="1000.50", issued_on="2026-10-31"), amount="400.00", received_at="2026-10-31T23:59:59Z"
    )
    make_invoice(ada, total="77.00", issued_on="2026-11-01")
    make_payment(customer=ada, amount="5.00", received_at="2026-11-01T00:00Z")
    make_invoice(total="9999.00")

    (figures,) = statement.build(ada, MONTH)["totals"]

    assert figures == {
        "currency": "EUR", "opening": "200.00", "invoiced": "1,000.50", "paid": "400.00", "closing": "800.50",
        "amount": "800.50", "credit": False,
    }  # fmt: skip


def test_a_void_invoice_is_listed_and_asks_for_nothing(ada):
    make_invoice(ada, total="100.00", status=InvoiceStatus.VOID)

    content = statement.build(ada, MONTH)

    assert content["totals"][0]["closing"] == "0.00"
    assert ([invoice["state"]["label"] for invoice in content["invoices"]], content["open"]) == (["Void"], [])


@pytest.mark.parametrize(
    ("paid", "received_at", "issued_on", "label"),
    [
        ("100.00", "2026-10-30T00:00Z", "2026-10-01", "Paid"),
        ("120.00", "2026-10-30T00:00Z", "2026-10-01", "Overpaid"),
        ("40.00", "2026-10-30T00:00Z", "2026-10-25", "Partly paid"),
        ("100.00", "2026-11-01T00:00Z", "2026-10-25", "Open"),
        ("100.00", "2026-11-01T00:00Z", "2026-10-01", "Overdue"),
    ],
)
def test_an_invoices_state_is_that_of_the_months_end(ada, paid, received_at, issued_on, label):
    make_payment(make_invoice(ada, issued_on=issued_on), amount=paid, received_at=received_at)

    assert statement.build(ada, MONTH)["invoices"][0]["state"]["label"] == label


def test_open_invoices_are_sorted_into_ages(ada):
    for issued_on, total in [
        ("2026-10-30", "1.00"),
        ("2026-10-01", "2.00"),
        ("2026-09-01", "3.00"),
        ("2026-01-01", "4.00"),
    ]:
        make_invoice(ada, issued_on=issued_on, total=total)

    content = statement.build(ada, MONTH)

    assert [age["amount"] for age in content["ages"]] == ["1.00", "2.00", "3.00", "4.00"]
    assert [row["left"] for row in content["open"]] == ["4.00", "3.00", "2.00", "1.00"]
    assert content["open"][0]["late_days"] == 289


def test_money_that_no_open_invoice_accounts_for_is_explained(ada):
    make_invoice(ada, total="100.00")
    make_payment(customer=ada, amount="30.00")

    content = statement.build(ada, MONTH)

    assert (content["open_total"], content["unmatched"], content["totals"][0]["closing"]) == (
        "100.00",
        "30.00",
        "70.00",
    )


def test_the_chart_has_what_was_invoiced_and_paid_in_each_of_twelve_months(ada):
    make_payment(
        make_invoice(ada, total="300.00", issued_on="2025-11-03"), amount="100.00", received_at="2026-10-31T23:59:59Z"
    )
    make_invoice(ada, total="7.00", issued_on="2025-10-31")
    make_invoice(ada, total="8.00", issued_on="2025-11-04", status=InvoiceStatus.VOID)

    chart = statement.build(ada, MONTH)["chart"]

    assert (len(chart), chart[0]) == (12, {"month": "Nov", "year": "2025", "invoiced": 300.0, "paid": 0.0})
    assert chart[-1] == {"month": "Oct", "year": "2026", "invoiced": 0.0, "paid": 100.0}
    assert [month["invoiced"] + month["paid"] for month in chart[1:-1]] == [0.0] * 10


def test_two_currencies_are_never_added(ada):
    make_invoice(ada, total="100.00")
    make_invoice(ada, total="50.00")
    make_invoice(ada, total="20.00", currency="USD")

    content = statement.build(ada, MONTH)

    assert [(figures["currency"], figures["closing"]) for figures in content["totals"]] == [
        ("EUR", "150.00"),
        ("USD", "20.00"),
    ]
    assert [invoice["total"] for invoice in content["invoices"]] == ["100.00", "50.00", "20.00 USD"]


def test_the_same_content_has_the_same_checksum_and_bytes_and_other_content_has_not(ada):
    make_invoice(ada)
    first, again = statement.build(ada, MONTH), statement.build(ada, MONTH)
    make_payment(customer=ada)
    other = statement.build(ada, MONTH)

    assert services.checksum_of(first) == services.checksum_of(again) != services.checksum_of(other)
    assert services.typeset(first) == services.typeset(again) != services.typeset(other)
