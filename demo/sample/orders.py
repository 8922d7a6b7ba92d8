"""The sample work of every product app, one function each."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

from apps.product.billing.signatures import signed_headers
from demo.sample.picture import make_picture
from demo.sample.sender import Sender

PEOPLE = (
    "ada", "alan", "barbara", "cecilia", "donald", "edsger", "frances", "grace", "hedy", "ida", "joan", "katherine",
)  # fmt: skip
RESETS = 5
WELCOMES = 12
PRIVATE_URL = "http://169.254.169.254/latest/meta-data/"


def password_resets(sender: Sender) -> Iterator[str]:
    """Send mails that overtake everything."""
    for name in PEOPLE[:RESETS]:
        to = f"{name}@example.com"
        body = {"to": to, "template": "password_reset"}
        yield sender.submit("mail", "password_reset", f"Password reset for {to}", "/api/v1/emails", body=body)


def welcome_mails(sender: Sender) -> Iterator[str]:
    """Send two mails more than go out within a minute."""
    for name in PEOPLE[:WELCOMES]:
        to = f"{name}@example.com"
        body = {"to": to, "template": "welcome"}
        yield sender.submit("mail", "welcome", f"Welcome mail to {to}", "/api/v1/emails", body=body)


def statements(sender: Sender, facts: dict[str, Any]) -> Iterator[str]:
    """Ask for monthly statements, drawn as PDF on the slow pool."""
    for customer_id, month in facts["statements"]:
        body = {"customer_id": customer_id, "month": month}
        title = f"Statement of customer {customer_id} for {month}"
        yield sender.submit("reports", "statement", title, "/api/v1/reports", body=body)


def thumbnails(sender: Sender, picture_url: str) -> Iterator[str]:
    """Have one picture fetched and one uploaded, and small copies made."""
    body = {"url": picture_url, "width": 160, "height": 100}
    yield sender.submit("images", "thumbnail_url", "Thumbnail of a fetched picture", "/api/v1/thumbnails", body=body)
    fields = {"file": ("yard.png", make_picture(shade=140), "image/png"), "width": "120", "height": "120"}
    yield sender.submit(
        "images", "thumbnail_upload", "Thumbnail of an uploaded picture", "/api/v1/thumbnails", fields=fields
    )


def exports(sender: Sender) -> Iterator[str]:
    """Stream tables into files."""
    for dataset, kind in (("invoices", "csv"), ("payments", "xlsx")):
        body = {"dataset": dataset, "format": kind}
        title = f"Export of all {dataset} as {kind}"
        yield sender.submit("exports", f"export_{kind}", title, "/api/v1/exports", body=body)


def reconciliation(sender: Sender, facts: dict[str, Any]) -> Iterator[str]:
    """Hold a month's invoices against the payments."""
    month = facts["month"]
    yield sender.submit(
        "billing", "reconciliation", f"Reconciliation of {month}", "/api/v1/reconciliations", body={"month": month}
    )


def payment_event(facts: dict[str, Any], payment_id: str) -> dict[str, Any]:
    """Return the event a payment provider sends when an open invoice is paid."""
    invoice = facts["open_invoice"]
    return {
        "type": "payment.received",
        "data": {
            "id": payment_id,
            "amount": invoice["amount"],
            "currency": invoice["currency"],
            "paid_at": datetime.datetime.now(datetime.UTC).isoformat(),
            "invoice_number": invoice["number"],
        },
    }


def send_payment_event(sender: Sender, secret: str, event: dict[str, Any]) -> int:
    """Send a provider's signed event, without a token, and return the status of the answer."""
    raw = json.dumps(event).encode()
    headers = signed_headers(secret, f"evt_{event['data']['id']}", raw)
    headers |= {"Content-Type": "application/json"}
    return sender.attempt("POST", "/api/v1/payments/events", raw=raw, headers=headers, anonymous=True).status


def request_private_url(sender: Sender) -> int:
    """Ask for a picture from inside the network and return the status of the refusal."""
    body = {"url": PRIVATE_URL, "width": 10, "height": 10}
    return sender.attempt("POST", "/api/v1/thumbnails", body=body).status
