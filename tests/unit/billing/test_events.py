"""Payment events are verified, read strictly and applied once; a reconciliation finds, links and corrects."""

import base64
import datetime
import secrets
from decimal import Decimal

import pytest
from django.test import override_settings
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook

from apps.billing import apps, services, signatures
from apps.billing.models import EventState, Outcome, PaymentEvent, Reconciliation, ReconciliationEntry
from apps.billing.schemas import PaymentReceived
from apps.shop.models import Invoice, InvoiceStatus, Payment
from tests.factories.shop import make_customer, make_invoice, make_payment

pytestmark = pytest.mark.django_db
GOOD = {
    "id": "pay_1", "amount": "119.00", "currency": "EUR", "paid_at": "2026-11-20T09:30:00+01:00",
    "reference": "INV-2026-000042",
}  # fmt: skip
SECRET = "a secret of more than thirty-two characters"
BODY = '{"type": "payment.received", "note": "grüezi"}'.encode()
NOW_S = 1_800_000_000


def payload(**changes) -> dict:
    data = {
        "id": "pay_1", "amount": "100.00", "currency": "EUR", "paid_at": "2026-10-20T12:00:00Z", "invoice_number": "",
        "reference": "",
    }  # fmt: skip
    return {"type": "payment.received", "data": data | changes}


def received(external_id: str = "evt_1", **changes) -> PaymentEvent:
    return services.receive_event(external_id, payload(**changes))[0]


@pytest.mark.parametrize("how", ["invoice_number", "reference"])
def test_an_event_becomes_a_payment_and_its_invoice_is_paid(how):
    invoice = make_invoice(total="100.00")
    event = received(**{how: invoice.number})

    assert services.apply_event(event.pk) == EventState.APPLIED

    payment = Payment.objects.get(external_id="pay_1")
    event.refresh_from_db()
    assert (payment.invoice, payment.customer, payment.amount) == (invoice, invoice.customer, Decimal("100.00"))
    assert Invoice.objects.get().status == InvoiceStatus.PAID
    assert event.payment == payment and event.applied_at is not None


def test_applying_again_changes_nothing():
    event = received(reference=make_invoice(total="100.00").number)
    services.apply_event(event.pk)
    Payment.objects.update(amount=Decimal("55.00"))

    assert services.apply_event(event.pk) == EventState.APPLIED

    assert Payment.objects.get().amount == Decimal("55.00")


def test_two_events_of_one_payment_make_one_payment():
    invoice = make_invoice(total="100.00")
    for external_id in ("evt_1", "evt_2"):
        services.apply_event(received(external_id, reference=invoice.number).pk)

    assert (Payment.objects.count(), Invoice.objects.get().status) == (1, InvoiceStatus.PAID)


def test_an_event_that_names_no_invoice_waits_for_a_person_and_one_of_a_later_invoice_finds_it():
    assert services.apply_event(received(reference="thank you").pk) == EventState.UNPLACED
    assert not Payment.objects.exists()

    event = received("evt_2", reference="INV-2026-999999")
    services.apply_event(event.pk)
    invoice = make_invoice(number="INV-2026-999999")

    assert (services.apply_event(event.pk), Payment.objects.get().invoice) == (EventState.APPLIED, invoice)


def read(**changes) -> PaymentReceived:
    data = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return PaymentReceived.model_validate({"type": "payment.received", "data": data})


def test_an_event_is_read_and_its_time_kept_in_utc():
    data = read().data

    assert (data.amount, data.currency) == (Decimal("119.00"), "EUR")
    assert data.paid_at == datetime.datetime(2026, 11, 20, 8, 30, tzinfo=datetime.UTC)
    assert read(reference=..., invoice_number="INV-2026-000042").data.reference == "", "a number says enough"


@pytest.mark.parametrize(
    ("sent", "kept"), [("119", "119.00"), ("0.01", "0.01"), (119, "119.00"), (119.1, "119.10"), (0.1, "0.10")]
)
def test_amounts_may_be_text_or_numbers(sent, kept):
    assert str(read(amount=sent).data.amount) == kept


NO_AMOUNTS = (
    *(0, -1, 1.001, 1e30, True, None, [], ...),
    *("0", "0.00", "-1", "1.001", "1e3", "١", "", "1,00", " 1", "9999999999"),
)
NO_TIMES = (
    *("2026-11-20T09:30:00", "2026-13-01T00:00:00Z", "yesterday", 1_800_000_000, "0001-01-01T00:00:00+14:00"),
    *("1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", None, ...),
)


@pytest.mark.parametrize(
    "changes",
    [
        *({"amount": amount} for amount in NO_AMOUNTS),
        *({"paid_at": paid_at} for paid_at in NO_TIMES),
        *({"currency": currency} for currency in ("eur", "EURO", "€", "", 978, None, ..., "EUR\n")),
        *({"id": ""}, {"id": "p" * 65}, {"id": "a b"}, {"id": 1}, {"id": ...}, {"extra": 1}, {"reference": ...}),
        *({"reference": "r" * 141}, {"reference": "a\x00b"}, {"reference": "", "invoice_number": ""}),
        {"invoice_number": "n" * 33},
    ],
    ids=str,
)
def test_wrong_fields_are_refused(changes):
    with pytest.raises(ValidationError):
        read(**changes)


@pytest.mark.parametrize(
    "body", [[], "text", None, {}, {"type": "payment.refunded", "data": GOOD}, {"type": "payment.received"}]
)
def test_other_events_are_refused(body):
    with pytest.raises(ValidationError):
        PaymentReceived.model_validate(body)


def headers(**changes: str | None) -> dict[str, str]:
    made = signatures.signed_headers(SECRET, "evt_1", BODY, now_s=NOW_S)
    made |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in made.items() if value is not None}


def test_the_published_vector_is_met():
    signature = signatures.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_the_library_signs_is_accepted():
    key = secrets.token_bytes(32)
    at = datetime.datetime.fromtimestamp(NOW_S, tz=datetime.UTC)
    signature = Webhook(key).sign("evt_1", at, BODY.decode())
    sent = {"webhook-id": "evt_1", "webhook-timestamp": str(NOW_S), "webhook-signature": signature}

    assert signatures.verify("whsec_" + base64.b64encode(key).decode(), sent, BODY, now_s=NOW_S) == "evt_1"


def test_a_secret_without_prefix_is_its_own_bytes():
    made = signatures.signed_headers(SECRET, "evt_1", BODY)

    Webhook(SECRET.encode()).verify(BODY, made, json_parse=False)


def test_one_fitting_signature_of_several_is_enough():
    good = headers()["webhook-signature"]

    assert signatures.verify(SECRET, headers(webhook_signature=f"v1,AAAA {good} v1a,xyz"), BODY, now_s=NOW_S) == "evt_1"


@pytest.mark.parametrize("off_s", [-300, 0, 300])
def test_five_minutes_either_way_are_tolerated(off_s):
    assert signatures.verify(SECRET, headers(), BODY, now_s=NOW_S + off_s) == "evt_1"


@pytest.mark.parametrize(("off_s", "fact"), [(-301, "301 s ahead"), (301, "301 s old")])
def test_more_than_five_minutes_are_refused(off_s, fact):
    with pytest.raises(signatures.SignatureRefused, match=fact):
        signatures.verify(SECRET, headers(), BODY, now_s=NOW_S + off_s)


@pytest.mark.parametrize(
    "changes",
    [
        *({"webhook_id": None}, {"webhook_id": ""}, {"webhook_id": "evt_2"}, {"webhook_id": "evt 1"}),
        *({"webhook_id": "e" * 256}, {"webhook_timestamp": None}, {"webhook_timestamp": "soon"}),
        *({"webhook_timestamp": "nan"}, {"webhook_timestamp": f"{NOW_S}.5"}, {"webhook_timestamp": f"-{NOW_S}"}),
        *({"webhook_timestamp": "9" * 400}, {"webhook_timestamp": str(NOW_S + 1)}, {"webhook_signature": None}),
        *({"webhook_signature": ""}, {"webhook_signature": "v1"}, {"webhook_signature": "v1,"}),
        *({"webhook_signature": "v1,not base64 ä"}, {"webhook_signature": "v2," + "A" * 43 + "="}),
    ],
)
def test_anything_else_in_the_headers_is_refused(changes):
    with pytest.raises(signatures.SignatureRefused):
        signatures.verify(SECRET, headers(**changes), BODY, now_s=NOW_S)


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY.replace(b"payment", b"paymenT"), b"\xff\xfe"])
def test_another_body_is_refused(body):
    with pytest.raises(signatures.SignatureRefused, match="none fits"):
        signatures.verify(SECRET, headers(), body, now_s=NOW_S)


def test_another_secret_is_refused_and_neither_is_told():
    with pytest.raises(signatures.SignatureRefused) as refused:
        signatures.verify("another secret of more than 32 characters", headers(), BODY, now_s=NOW_S)

    assert "another secret" not in str(refused.value) and SECRET not in str(refused.value)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_cannot_sign_fails_the_system_check(secret, settings):
    with override_settings(PAYMENT_SECRET=secret):
        (error,) = apps.check_payment_secret(None)

    assert apps.check_payment_secret(None) == [], "that of this project"
    assert error.id == "switchyard.E060"
    assert "SWITCHYARD_PAYMENT_SECRET" in error.msg and "copy the sender's secret" in error.hint


MONTH = "2026-10"


def reconcile(month: str = MONTH) -> dict[str, int]:
    return services.reconcile(month, lambda done, total, note: None)


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
    assert (first["corrected"], second["corrected"], entry.corrected_from) == (1, 0, InvoiceStatus.PAID)
    assert Reconciliation.objects.get(month=MONTH).corrected == 1


def test_a_payment_whose_reference_names_an_invoice_of_its_customer_is_linked():
    invoice = make_invoice()
    words = invoice.number.lower().replace("-", " ")
    payment = make_payment(customer=invoice.customer, reference=f"Rg. {words}")
    foreign = make_payment(customer=make_customer(), reference=invoice.number)
    vague = make_payment(customer=invoice.customer, reference="thank you")

    assert reconcile() == {"matched": 1, "unmatched": 0, "corrected": 1}
    assert list(Payment.objects.filter(invoice=invoice)) == [payment]
    assert set(Payment.objects.filter(invoice=None)) == {foreign, vague}


def test_a_void_invoice_asks_for_nothing_and_stays_void():
    make_invoice(status=InvoiceStatus.VOID)
    make_payment(make_invoice(status=InvoiceStatus.VOID))

    assert reconcile() == {"matched": 1, "unmatched": 1, "corrected": 0}
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

    assert (halfway, unfinished, result) == (2, None, {"matched": 0, "unmatched": 5, "corrected": 3})
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
