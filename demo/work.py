"""The table of sample work: what the demo sends of each product app, and the outcome that ``--check`` expects."""

import datetime
import http
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apps.billing.signatures import signed_headers
from demo.addresses import ALERT_MAILBOX
from demo.sample import Job, Order, Seen
from switchyard.broker.process import cores_here

PEOPLE = (
    "ada", "alan", "barbara", "cecilia", "donald", "edsger", "frances", "grace", "hedy", "ida", "joan", "katherine",
)  # fmt: skip
RESETS, YEAR = 5, 12
LIMIT = 10  # of welcome mails in a minute, and of newsletters to one reader in an hour
SOON_MS, LATE_MS = 20_000, 600_000
LOCKED_S = 2  # after which a job that met a lock runs again, at the earliest
ATTEMPTS = 6
COUNTS = ("matched", "unmatched", "corrected")
PRIVATE_URL = "http://169.254.169.254/latest/meta-data/"
THUMBNAILS, EXPORTS = "/api/v1/thumbnails", "/api/v1/exports"
PNG, JPEG, WEBP, PDF, WORKBOOK = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"%PDF-", b"PK\x03\x04"
METRICS = (
    "switchyard_queue_depth",
    "switchyard_queue_oldest_age_seconds",
    "switchyard_message_wait_seconds_bucket",
    "switchyard_message_duration_seconds_bucket",
    "switchyard_messages_total",
    "switchyard_retries_total",
    "switchyard_dead_letters",
    "switchyard_worker_up",
    "switchyard_worker_slots",
    "switchyard_worker_slots_busy",
)


@dataclass(frozen=True, slots=True)
class Work:
    """One row of the table; where the outcome ``passes``, seen once is enough."""

    app: str
    what: str
    expected: str
    send: Callable[[Order], object]
    look: Callable[[Order], Seen]
    passes: bool = False


def send_mails(order: Order, template: str, title: str, count: int) -> None:
    for name in PEOPLE[:count]:
        to = f"{name}@example.com"
        order.submit(f"{title} {to}", "/api/v1/emails", json={"to": to, "template": template})


def resets(order: Order) -> Seen:
    mails = order.mails()
    return order.seen(order.ended_as("succeeded") and len(order.jobs) == mails == RESETS, f"{mails} mails")


def limited(order: Order) -> Seen:
    """Expect ten mails, and every other job held by a rate limit."""
    sent = sum(job.state == "succeeded" for job in order.jobs)
    held = sum((job.state, job.reason) == ("scheduled", "rate_limit") for job in order.jobs)
    as_expected = (sent, held, order.mails()) == (LIMIT, len(order.jobs) - LIMIT, LIMIT)
    return order.seen(as_expected, f"{order.mails()} mails, {held} held by the limit")


def submit(order: Order, title: str, actor: Any, delay_ms: int | None = None, **arguments: Any) -> str:
    """Enqueue a job as an app of the yard does, for what the API has no address."""
    from switchyard.api.tokens import find_token
    from switchyard.jobs import services

    token = find_token(order.run.token)
    owner = token.owner_key if token else ""
    job_id = services.submit(actor, owner=owner, delay_ms=delay_ms, kwargs=arguments)
    order.jobs.append(Job(title, job_id))
    return job_id


def send_newsletters(order: Order, title: str, to: str, count: int = 1, delay_ms: int | None = None) -> None:
    from apps.mail.actors import newsletter

    content = {"headline": "This week in the yard", "paragraphs": ["Twelve new customers came aboard."]}
    for _ in range(count):
        submit(order, f"Newsletter {title}", newsletter, delay_ms, to=to, **content)


def send_cancelled(order: Order) -> None:
    send_newsletters(order, "that is cancelled", "never@readers.example", delay_ms=LATE_MS)
    order.run.client.send("DELETE", f"/api/v1/jobs/{order.jobs[0].job_id}")


def scheduled(order: Order) -> Seen:
    if not order.ended_as("succeeded"):
        return order.seen(as_expected=False)
    waited_s = order.jobs[0].seconds("enqueued_at", "started_at") or 0.0
    return order.seen(waited_s >= SOON_MS / 1_000 and order.mails() == 1, f"started after {waited_s:.1f} s")


def cancelled(order: Order) -> Seen:
    return order.seen(order.ended_as("cancelled") and order.mails() == 0)


def send_statements(order: Order) -> None:
    for customer_id, month in order.run.facts["statements"]:
        body = {"customer_id": customer_id, "month": month}
        order.submit(f"Statement of customer {customer_id} for {month}", "/api/v1/reports", json=body)


def send_in_turn(order: Order) -> None:
    """Send a year's statements of one customer, then one of another, faster than they are made."""
    from apps.reports.actors import generate_report
    from apps.shop.queries import months_with_invoices

    (many, _), (one, month), *_ = order.run.facts["statements"]
    for customer, its in [*((many, each) for each in months_with_invoices()[:YEAR]), (one, month)]:
        title = f"Statement of customer {customer} for {its}"
        submit(order, title, generate_report, customer_id=customer, month=its)


def in_turn(order: Order) -> Seen:
    """Expect that few of the first customer's start between the send and the start of the other's."""
    starts = [job.body.get("started_at") or "" for job in order.jobs]
    if not order.ended_as("succeeded"):
        return order.seen(as_expected=False)
    before = sum(order.jobs[-1].body["enqueued_at"] < start < starts[-1] for start in starts)
    return order.seen(before <= 2 * cores_here() + 1, f"{before} of the first one's before it")


def send_picture_address(order: Order) -> None:
    body = {"url": f"{order.run.receiver}/image.jpg", "width": 160, "height": 100}
    order.submit("Thumbnail of a fetched picture", THUMBNAILS, json=body)


def send_picture(order: Order) -> None:
    from PIL import Image

    picture = io.BytesIO()
    Image.linear_gradient("L").resize((640, 400)).convert("RGB").save(picture, "PNG")
    fields = {"file": ("yard.png", picture.getvalue(), "image/png"), "width": "120", "height": "120"}
    order.submit("Thumbnail of an uploaded picture", THUMBNAILS, fields=fields)


def send_private_url(order: Order) -> None:
    body = {"url": PRIVATE_URL, "width": 10, "height": 10}
    order.statuses.append(order.run.client.send("POST", THUMBNAILS, json=body).status)


def send_export(order: Order, dataset: str, kind: str) -> None:
    order.submit(f"Export of all {dataset} as {kind}", EXPORTS, json={"dataset": dataset, "format": kind})


def files(order: Order, *starts: bytes) -> Seen:
    """Expect a file that starts as its format does, for each job."""
    good = sum(order.run.file_of(job).startswith(starts) for job in order.jobs)
    return order.seen(order.ended_as("succeeded") and good == len(order.jobs), f"{good} as asked for")


def export_csv(order: Order) -> Seen:
    lines = [len(order.run.file_of(job).splitlines()) for job in order.jobs]
    return order.seen(
        order.ended_as("succeeded") and min(lines) > order.run.count("shop.Invoice"), f"{sum(lines)} lines"
    )


def send_everything(order: Order) -> None:
    from apps.exports.actors import export_everything

    submit(order, "Batch of every export", export_everything, format="csv")


def everything(order: Order) -> Seen:
    from switchyard.batches.queries import find

    if not order.ended_as("succeeded"):
        return order.seen(as_expected=False)
    found = find((order.jobs[0].body["result"] or {}).get("batch", ""))
    called_back = "on_complete" in found.sent
    return order.seen(found.state == "succeeded" and called_back, f"{found.done} of {found.total} members done")


def send_reconciliation(order: Order) -> None:
    """Send it while the demo itself holds the lock of its month."""
    from switchyard.limits import lock

    month = order.run.facts["month"]
    with lock(f"reconcile {month}", wait_s=5):
        order.submit(f"Reconciliation of {month}", "/api/v1/reconciliations", json={"month": month})
        order.wait_for("lock")


def reconciliation(order: Order) -> Seen:
    if not order.ended_as("succeeded"):
        return order.seen(as_expected=False)
    result, waited_s = order.jobs[0].body["result"] or {}, order.jobs[0].seconds("enqueued_at", "started_at") or 0.0
    text = ", ".join(f"{result.get(name)} {name}" for name in COUNTS)
    counted = all(isinstance(result.get(name), int) for name in COUNTS)
    return order.seen(counted and waited_s >= LOCKED_S, f"waited {waited_s:.1f} s, {text}")


def send_payment(order: Order, payment_id: str, secret: str = "") -> None:
    """Send a payment provider's event, signed with a secret, for an invoice that is open; without a token."""
    if (invoice := order.run.facts["open_invoice"]) is None:
        return
    data = {
        "id": f"{payment_id}_{order.run.key}",
        "amount": invoice["total"],
        "currency": invoice["currency"],
        "paid_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "invoice_number": invoice["number"],
    }
    raw = json.dumps({"type": "payment.received", "data": data}).encode()
    headers = signed_headers(secret or order.run.payment_secret, f"evt_{data['id']}", raw)
    headers |= {"Content-Type": "application/json"}
    # A provider that missed the first answer sends the event again.
    for _ in range(1 if secret else 2):
        answer = order.run.client.send("POST", "/api/v1/payments/events", body=raw, headers=headers)
        order.statuses.append(answer.status)
        if answer.status == http.HTTPStatus.ACCEPTED:
            order.run.say("A payment provider's signed event was taken in")


def payments(order: Order, payment_id: str, statuses: list[int], booked: int) -> Seen:
    """Expect the answers to an event, and how often its payment was booked."""
    found = order.run.count("shop.Payment", external_id=f"{payment_id}_{order.run.key}")
    return order.seen(order.statuses == statuses and found == booked, f"{said(order)}, booked {found} times")


def said(order: Order) -> str:
    return ", ".join(map(str, order.statuses)) or "not sent yet"


def send_events(order: Order, path: str, event: str, count: int, *, in_order: bool = False) -> None:
    """Register the endpoint on the demo's receiver where it is missing, and publish its event so many times."""
    run, url = order.run, order.run.receiver + path
    # The 410 of the endpoint that is gone disables it, so each run registers it anew.
    if not run.count("webhooks.Endpoint", url=url, active=True):
        body = {"url": url, "events": [event], "in_order": in_order}
        made = run.client.ask("POST", "/api/v1/webhooks/endpoints", expect=201, json=body)
        run.keep_secret(made["secret"])
    for number in range(count):
        content = {"event": event, "payload": {"number": number, "run": run.key}}
        order.submit(f"Webhook {event} to the {path[1:]} endpoint", "/api/v1/webhooks/events", json=content)


def healthy(order: Order) -> Seen:
    arrived = order.run.arrived("/healthy")
    signed = {entry["id"] for entry in arrived if entry["status"] == 200 and entry["signature_ok"]}
    as_expected = order.ended_as("succeeded") and len(signed) == len(arrived) == len(order.jobs)
    return order.seen(as_expected, f"{len(signed)} signed requests")


def flaky(order: Order) -> Seen:
    attempts = " and ".join(str(job.attempts) for job in order.jobs)
    arrived = order.run.arrived("/flaky")
    failed = sum(entry["status"] == 500 for entry in arrived)
    retried = all(job.attempts > 1 for job in order.jobs) and failed >= len(order.jobs)
    ids = [entry["id"] for entry in arrived]
    in_order = ids == sorted(ids, key=ids.index)  # none between the attempts of another
    return order.seen(order.ended_as("succeeded") and retried and in_order, f"at attempts {attempts}")


def broken(order: Order) -> Seen:
    letters = sum(order.run.count("switchyard_dead_letters.DeadLetter", message_id=job.job_id) for job in order.jobs)
    arrived, alerts = len(order.run.arrived("/broken")), _alerts(order, "DeliveryFailed")
    as_expected = order.ended_as("dead", "exhausted") and len(order.jobs) == letters == alerts == 1
    return order.seen(as_expected and arrived == ATTEMPTS, f"{arrived} requests, {letters} letter, {alerts} alert")


def gone(order: Order) -> Seen:
    arrived, alerts = len(order.run.arrived("/gone")), _alerts(order, "PermanentFailure")
    disabled = order.run.count("webhooks.Endpoint", url=f"{order.run.receiver}/gone", active=False)
    as_expected = order.ended_as("dead", "permanent") and arrived == alerts == disabled == 1
    return order.seen(as_expected, f"{arrived} request, {disabled} disabled, {alerts} alert")


def _alerts(order: Order, failure: str) -> int:
    return sum(mail["X-Envelope-To"] == ALERT_MAILBOX and failure in mail["Subject"] for mail in order.run.mails())


def metrics(order: Order) -> Seen:
    samples = {line.split("{")[0].split(" ")[0] for line in order.run.page("/metrics").decode().splitlines()}
    missing = [name for name in METRICS if name not in samples]
    return order.seen(not missing, f"missing {', '.join(missing)}" if missing else f"all {len(METRICS)} of them")


WORK = (
    Work("webhooks", "broken endpoint", "6 attempts, dead letter, one alert",
         lambda order: send_events(order, "/broken", "customer.created", 1), broken),
    Work("webhooks", "flaky endpoint, in order", "retried, delivered one after the other",
         lambda order: send_events(order, "/flaky", "report.ready", 2, in_order=True), flaky),
    Work("webhooks", "endpoint that is gone", "disabled by its 410, one alert",
         lambda order: send_events(order, "/gone", "customer.deleted", 1), gone),
    Work("webhooks", "healthy endpoint", "each delivered at once, signed",
         lambda order: send_events(order, "/healthy", "invoice.paid", 4), healthy),
    Work("mail", "newsletter in 20 s", "scheduled, then sent, not before",
         lambda order: send_newsletters(order, "for later", "later@readers.example", delay_ms=SOON_MS), scheduled),
    Work("mail", "newsletter in 10 min", "cancelled, never sent", send_cancelled, cancelled),
    Work("mail", "5 password resets", "5 succeeded, a mail each",
         lambda order: send_mails(order, "password_reset", "Password reset for", RESETS), resets),
    Work("reports", "monthly statements", "all succeeded, a PDF each",
         send_statements, lambda order: files(order, PDF)),
    Work("reports", "a year's statements, then another customer's", "the other's in its turn, not last",
         send_in_turn, in_turn),
    Work("images", "thumbnail by URL", "succeeded, an image",
         send_picture_address, lambda order: files(order, PNG, JPEG, WEBP)),
    Work("images", "thumbnail of an upload", "succeeded, an image",
         send_picture, lambda order: files(order, PNG, JPEG, WEBP)),
    Work("images", "URL of a private address", "refused with 422", send_private_url,
         lambda order: order.seen(order.statuses == [422], said(order))),
    Work("exports", "invoices as CSV", "succeeded, a row for each",
         lambda order: send_export(order, "invoices", "csv"), export_csv),
    Work("exports", "payments as XLSX", "succeeded, a workbook",
         lambda order: send_export(order, "payments", "xlsx"), lambda order: files(order, WORKBOOK)),
    Work("exports", "every dataset as a batch", "each succeeded, then the callback", send_everything, everything),
    Work("billing", "reconciliation of a locked month", "waits for the lock, then its counts",
         send_reconciliation, reconciliation),
    Work("billing", "signed payment event, sent twice", "202, 202, booked once",
         lambda order: send_payment(order, "pay"), lambda order: payments(order, "pay", [202, 202], 1)),
    Work("billing", "payment event, wrong signature", "401, booked never",
         lambda order: send_payment(order, "forged", "a secret that is not the yard's own"),
         lambda order: payments(order, "forged", [401], 0)),
    Work("mail", "12 welcome mails", "10 sent, 2 held by the limit of 10/min",
         lambda order: send_mails(order, "welcome", "Welcome mail to", len(PEOPLE)), limited, passes=True),
    Work("mail", "11 newsletters to one reader", "10 sent, 1 held by the limit of 10/h per reader",
         lambda order: send_newsletters(order, "of eleven", f"{order.run.key}@readers.example", LIMIT + 1), limited),
    Work("operations", "/metrics", "depth, age, wait, outcomes, pools", lambda order: None, metrics),
)  # fmt: skip
SENT = {work.what: work.send for work in WORK}
