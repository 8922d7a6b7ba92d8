"""The shop: writes that may run twice, months, settlement, reads in few queries, pages of the admin."""

import datetime
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db.models import F, Sum
from django.urls import reverse

from apps.shop import months, queries, sample, services, settlement
from apps.shop.models import Customer, Invoice, InvoiceLine, InvoiceStatus, Payment
from tests.factories.shop import make_customer, make_invoice, make_payment

pytestmark = pytest.mark.django_db
AT = datetime.datetime(2026, 10, 20, 12, tzinfo=datetime.UTC)
PAGES = ["customer", "invoice", "payment"]
UNTIL = datetime.date(2026, 11, 20)


def record(invoice: Invoice, amount: str, external_id: str = "pay_1") -> Payment:
    return services.record_payment(
        external_id=external_id, invoice=invoice, amount=Decimal(amount), currency="EUR", received_at=AT
    )


def status_of(invoice: Invoice) -> str:
    return Invoice.objects.get(pk=invoice.pk).status


def test_a_payment_in_full_makes_its_invoice_paid():
    invoice = make_invoice(total="100.00")

    payment = record(invoice, "100.00")

    assert (payment.invoice, payment.customer, status_of(invoice)) == (invoice, invoice.customer, InvoiceStatus.PAID)


def test_the_same_payment_twice_counts_once():
    invoice = make_invoice(total="100.00")

    record(invoice, "60.00")
    record(invoice, "60.00")

    assert (Payment.objects.count(), status_of(invoice)) == (1, InvoiceStatus.PARTLY_PAID)


def test_a_payment_that_moves_brings_both_invoices_up_to_date():
    wrong, right = make_invoice(total="100.00"), make_invoice(total="100.00")
    record(wrong, "100.00")

    record(right, "100.00")

    assert (status_of(wrong), status_of(right)) == (InvoiceStatus.OPEN, InvoiceStatus.PAID)
    assert Payment.objects.get().customer == right.customer


def test_a_void_invoice_stays_void_whatever_is_paid():
    invoice = make_invoice(status=InvoiceStatus.VOID)

    record(invoice, "100.00")

    assert status_of(invoice) == InvoiceStatus.VOID


def test_only_statuses_that_differ_are_written(django_assert_num_queries):
    wrong, right = make_invoice(), make_invoice(status=InvoiceStatus.PAID)
    paid = {wrong.pk: wrong.total, right.pk: right.total}

    assert services.settle([wrong, right], paid) == {wrong.pk: InvoiceStatus.OPEN}
    assert services.settle([wrong, right], paid) == {}

    assert status_of(wrong) == InvoiceStatus.PAID


def test_linking_leaves_other_payments_alone():
    invoice = make_invoice()
    known, unknown = make_payment(customer=invoice.customer), make_payment(customer=invoice.customer)

    assert services.link_payments([known, unknown], {known.pk: invoice.pk}) == [known]

    assert list(Payment.objects.filter(invoice=invoice)) == [known]


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-00", "2026-1", "26-10", "2026/10", "0000-01", "2026-10-01", "٢٠٢٦-10", ""]
)
def test_a_month_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match="is not a month; write it as YYYY-MM"):
        months.first_day(text)


def test_bounds_end_where_the_next_month_begins_and_the_last_of_the_calendar_has_none():
    assert months.bounds("2026-10") == (datetime.date(2026, 10, 1), datetime.date(2026, 11, 1))
    assert months.bounds("2026-12") == (datetime.date(2026, 12, 1), datetime.date(2027, 1, 1))
    with pytest.raises(ValueError, match="no day follows it"):
        months.bounds("9999-12")


@pytest.mark.parametrize("page", PAGES)
def test_a_list_needs_as_many_queries_for_thirty_rows_as_for_two(page, admin_client, django_assert_max_num_queries):
    address = reverse(f"admin:shop_{page}_changelist")
    for _ in range(2):
        make_payment(make_invoice())
    admin_client.get(address)

    with django_assert_max_num_queries(40) as few:
        admin_client.get(address)
    most = len(few.captured_queries)
    for _ in range(28):
        make_payment(make_invoice())
    admin_client.get(address)  # reads the verdict anew, which a page keeps for 5 s
    with django_assert_max_num_queries(most):
        answer = admin_client.get(address)

    assert answer.status_code == 200
    assert b"30" in answer.content


@pytest.mark.parametrize("page", PAGES)
def test_a_list_can_be_searched_and_a_row_opened(page, admin_client):
    make_payment(make_invoice())

    assert admin_client.get(reverse(f"admin:shop_{page}_changelist"), {"q": "nothing like it"}).status_code == 200
    assert admin_client.get(reverse(f"admin:shop_{page}_add")).status_code == 200


@pytest.mark.parametrize(
    ("total", "paid", "status"),
    [
        *(("100.00", paid, InvoiceStatus.PARTLY_PAID) for paid in ("0.01", "99.99")),
        ("100.00", "0.00", InvoiceStatus.OPEN),
        ("100.00", "100.00", InvoiceStatus.PAID),
        ("100.00", "100.01", InvoiceStatus.OVERPAID),
        ("0.00", "0.00", InvoiceStatus.PAID),
    ],
)
def test_status_follows_what_was_paid(total, paid, status):
    assert settlement.status_for(Decimal(total), Decimal(paid)) == status


def test_only_linked_payments_in_the_invoices_currency_count():
    invoice = Invoice(pk=1, currency="EUR")
    payments = [
        Payment(invoice_id=1, amount=Decimal("0.10"), currency="EUR"),
        Payment(invoice_id=1, amount=Decimal("0.20"), currency="EUR"),
        Payment(invoice_id=1, amount=Decimal("50.00"), currency="USD"),
        Payment(invoice_id=2, amount=Decimal("50.00"), currency="EUR"),
        Payment(invoice_id=None, amount=Decimal("50.00"), currency="EUR"),
    ]

    assert settlement.paid_amounts([invoice], payments) == {1: Decimal("0.30")}


SPELT = ("INV-2026-000042", "inv 2026 000042", "Rg. inv2026000042", "payment for INV-2026/000042 thanks")
NO_NUMBER = ("", "thank you", "INV-2026", "INV-2026-0000421", "INV-2026-000042 and INV-2026-000043", "2026-000042")


@pytest.mark.parametrize(
    ("reference", "number"),
    [
        *((spelt, "INV-2026-000042") for spelt in (*SPELT, "INV-2026-000042, inv2026000042")),
        *((reference, None) for reference in NO_NUMBER),
    ],
)
def test_the_one_invoice_number_of_a_reference_is_found_however_it_is_spelt(reference, number):
    assert settlement.invoice_number(reference) == number


@pytest.mark.parametrize("customer_id", [0, -1, 10**6, 2**63, 10**30])
def test_an_id_that_no_customer_has_finds_none(customer_id):
    make_customer()

    assert queries.customer_or_none(customer_id) is None


def test_a_months_invoices_are_those_issued_in_it_by_that_customer(django_assert_num_queries):
    customer = make_customer()
    make_invoice(customer, issued_on="2026-09-30")
    last = make_invoice(customer, issued_on="2026-10-31")
    first = make_invoice(customer, issued_on="2026-10-01")
    make_invoice(customer, issued_on="2026-11-01")
    make_invoice(issued_on="2026-10-15")

    with django_assert_num_queries(2):
        found = queries.invoices_of(customer, "2026-10")
        assert [line.description for invoice in found for line in invoice.lines.all()] == ["Consulting, hour"] * 2

    assert found == [first, last]


def test_a_months_payments_are_those_received_in_it_in_utc(django_assert_num_queries):
    invoice = make_invoice()
    make_payment(invoice, received_at="2026-09-30T23:59:59.999999+00:00")
    first = make_payment(invoice, received_at="2026-10-01T00:00:00+00:00")
    last = make_payment(invoice, received_at="2026-10-31T23:59:59.999999+00:00")
    make_payment(invoice, received_at="2026-11-01T00:00:00+00:00")
    make_payment(received_at="2026-10-15T12:00:00+00:00")

    with django_assert_num_queries(1):
        found = queries.payments_of(invoice.customer, "2026-10")
        assert {payment.invoice.number for payment in found} == {invoice.number}

    assert found == [first, last]


def test_months_with_invoices_are_listed_newest_first():
    for day in ("2026-01-31", "2025-12-01", "2026-01-02", "2026-05-05"):
        make_invoice(issued_on=day)

    assert queries.months_with_invoices() == ["2026-05", "2026-01", "2025-12"]


def test_streams_yield_every_row_once_in_chunks(django_assert_num_queries):
    customer = make_customer()
    invoices = [make_invoice(customer) for _ in range(5)]
    payments = [make_payment(invoices[0]), make_payment(customer=customer)]

    with django_assert_num_queries(4):
        rows = queries.stream(Invoice.objects.select_related("customer"), chunk_rows=2)
        streamed = [(invoice.pk, invoice.customer.name) for invoice in rows]

    assert streamed == [(invoice.pk, customer.name) for invoice in invoices]
    assert list(queries.stream(Payment.objects.all(), chunk_rows=1)) == payments
    assert list(queries.stream(Customer.objects.all())) == [customer]


def test_rows_added_behind_a_stream_do_not_move_it():
    first, second = make_customer(), make_customer()
    stream = queries.stream(Customer.objects.all(), chunk_rows=1)

    seen = [next(stream)]
    first.delete()
    seen += list(stream)

    assert [customer.email for customer in seen] == [first.email, second.email]


def contents() -> list[list[tuple]]:
    return [list(model.objects.order_by("pk").values_list()) for model in (Customer, Invoice, InvoiceLine, Payment)]


def test_a_second_run_changes_nothing():
    first = sample.create(customers=10, until=UNTIL)
    before = contents()

    assert first and not sample.create(customers=20, until=UNTIL)
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


def test_nothing_happens_after_the_last_day_nor_before_the_twelve_months_and_totals_are_the_sum_of_the_lines():
    sample.create(customers=30, until=UNTIL)

    days = Invoice.objects.order_by("issued_on").values_list("issued_on", flat=True)
    assert datetime.date(2025, 11, 1) <= days[0]
    assert list(days)[-1] <= UNTIL
    assert not Payment.objects.filter(received_at__date__gt=UNTIL).exists()
    assert not Customer.objects.filter(created_at__date__gte=days[0]).exists()
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
