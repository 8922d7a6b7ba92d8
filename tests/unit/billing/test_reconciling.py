"""A reconciliation finds, links, corrects, and then has nothing more to do."""

from __future__ import annotations

from decimal import Decimal

import pytest

from apps.billing import services
from apps.billing.models import Outcome, Reconciliation, ReconciliationEntry
from apps.shop.models import Invoice, InvoiceStatus, Payment
from tests.factories.shop import make_customer, make_invoice, make_payment

pytestmark = pytest.mark.django_db
MONTH = "2026-10"


def quiet(done: int, total: int, note: str) -> None:
    pass


def reconcile(month: str = MONTH) -> dict[str, int]:
    return services.reconcile(month, quiet)


@pytest.mark.parametrize(
    ("amounts", "outcome", "status"),
    [
        ([], Outcome.MISSING, InvoiceStatus.OPEN),
        (["99.99"], Outcome.UNDERPAID, InvoiceStatus.PARTLY_PAID),
        (["100.00"], Outcome.MATCHED, InvoiceStatus.PAID),
        (["33.33", "66.67"], Outcome.MATCHED, InvoiceStatus.PAID),
        (["100.00", "100.00"], Outcome.OVERPAID, InvoiceStatus.OVERPAID),
    ],
)
def test_each_invoice_gets_the_outcome_and_status_its_payments_say(amounts, outcome, status):
    invoice = make_invoice(total="100.00")
    for amount in amounts:
        make_payment(invoice, amount=amount)

    result = reconcile()

    entry = ReconciliationEntry.objects.get(invoice=invoice)
    invoice.refresh_from_db()
    assert (entry.outcome, entry.expected, invoice.status) == (outcome, Decimal("100.00"), status)
    assert (result["matched"], result["unmatched"]) == ((1, 0) if outcome == Outcome.MATCHED else (0, 1))


def test_a_corrected_status_is_counted_and_remembered():
    invoice = make_invoice(status=InvoiceStatus.PAID)

    first, second = reconcile(), reconcile()

    entry = ReconciliationEntry.objects.get(invoice=invoice)
    assert (first["corrected"], second["corrected"]) == (1, 0)
    assert entry.corrected_from == InvoiceStatus.PAID
    assert Reconciliation.objects.get(month=MONTH).corrected == 1


def test_a_payment_whose_reference_names_an_invoice_of_its_customer_is_linked():
    invoice = make_invoice()
    words = invoice.number.lower().replace("-", " ")
    payment = make_payment(customer=invoice.customer, reference=f"Rg. {words}")
    foreign = make_payment(customer=make_customer(), reference=invoice.number)
    vague = make_payment(customer=invoice.customer, reference="thank you")

    result = reconcile()

    assert result == {"matched": 1, "unmatched": 0, "corrected": 1}
    assert list(Payment.objects.filter(invoice=invoice)) == [payment]
    assert set(Payment.objects.filter(invoice=None)) == {foreign, vague}


def test_a_void_invoice_asks_for_nothing_and_stays_void():
    make_invoice(status=InvoiceStatus.VOID)
    make_payment(make_invoice(status=InvoiceStatus.VOID))

    result = reconcile()

    assert result == {"matched": 1, "unmatched": 1, "corrected": 0}
    assert set(Invoice.objects.values_list("status", flat=True)) == {InvoiceStatus.VOID}


def test_a_month_without_invoices_reconciles_to_zeros():
    make_invoice(issued_on="2026-09-30")
    make_invoice(issued_on="2026-11-01")

    assert reconcile() == {"matched": 0, "unmatched": 0, "corrected": 0}


def test_batches_cover_every_invoice_once_and_report_in_between(monkeypatch):
    monkeypatch.setattr(services, "BATCH_INVOICES", 2)
    customer = make_customer()
    for _ in range(5):
        make_invoice(customer)
    reported = []

    services.reconcile(MONTH, lambda done, total, note: reported.append((done, total, note)))

    assert [(done, total) for done, total, _ in reported] == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert ReconciliationEntry.objects.count() == 5


def test_a_run_that_is_stopped_keeps_what_it_did_and_the_next_does_the_rest(monkeypatch):
    monkeypatch.setattr(services, "BATCH_INVOICES", 2)
    customer = make_customer()
    for _ in range(5):
        make_invoice(customer, status=InvoiceStatus.PAID)

    class Stopped(Exception):
        pass

    def stop_after_first_batch(done: int, total: int, note: str) -> None:
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        services.reconcile(MONTH, stop_after_first_batch)
    halfway = ReconciliationEntry.objects.count()
    unfinished = Reconciliation.objects.get(month=MONTH).finished_at
    result = reconcile()

    assert (halfway, unfinished) == (2, None)
    assert result == {"matched": 0, "unmatched": 5, "corrected": 3}
    assert Reconciliation.objects.get(month=MONTH).finished_at is not None


def test_an_entry_follows_its_invoice_out_of_the_month():
    invoice = make_invoice()
    reconcile()

    Invoice.objects.update(issued_on="2026-09-01")

    assert reconcile()["unmatched"] == 0
    assert not ReconciliationEntry.objects.filter(invoice=invoice).exists()


def test_a_batch_needs_the_same_few_queries_whatever_its_size(django_assert_max_num_queries):
    customer = make_customer()
    for _ in range(50):
        make_payment(make_invoice(customer))

    with django_assert_max_num_queries(35):
        reconcile()
