"""Sample orders of every product app, one function each; webhook endpoints that fail in four ways; a picture."""

from __future__ import annotations

import datetime
import http
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.billing.signatures import signed_headers
from demo.client import Client
from demo.identity import read_private, write_private
from demo.sample.journal import Sender

PEOPLE = (
    "ada", "alan", "barbara", "cecilia", "donald", "edsger", "frances", "grace", "hedy", "ida", "joan", "katherine",
)  # fmt: skip
RESETS = 5
WELCOMES = 12
PRIVATE_URL = "http://169.254.169.254/latest/meta-data/"

PICTURE_WIDTH, PICTURE_HEIGHT = 640, 400
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EIGHT_BIT_RGB = (8, 2, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One webhook endpoint of the demo's receiver: its path decides how it answers.

    Args:
        event: Event it subscribes to.
        deliveries: Number of events that one run sends to it.
    """

    kind: str
    path: str
    event: str
    deliveries: int


BEHAVIOURS = (
    Behaviour("broken", "/broken", "customer.created", 1),
    Behaviour("flaky", "/flaky", "report.ready", 2),
    Behaviour("gone", "/gone", "customer.deleted", 1),
    Behaviour("healthy", "/healthy", "invoice.paid", 4),
)


def password_resets(sender: Sender) -> Iterator[str]:
    """Send mails to the urgent queue."""
    for name in PEOPLE[:RESETS]:
        to = f"{name}@example.com"
        body = {"to": to, "template": "password_reset"}
        yield sender.submit("mail", "password_reset", f"Password reset for {to}", "/api/v1/emails", body=body)


def welcome_mails(sender: Sender) -> Iterator[str]:
    """Send two mails more than the rate limit admits within a minute."""
    for name in PEOPLE[:WELCOMES]:
        to = f"{name}@example.com"
        body = {"to": to, "template": "welcome"}
        yield sender.submit("mail", "welcome", f"Welcome mail to {to}", "/api/v1/emails", body=body)


def statements(sender: Sender, facts: dict[str, Any]) -> Iterator[str]:
    """Request monthly statements, which the slow pool renders as PDF."""
    for customer_id, month in facts["statements"]:
        body = {"customer_id": customer_id, "month": month}
        title = f"Statement of customer {customer_id} for {month}"
        yield sender.submit("reports", "statement", title, "/api/v1/reports", body=body)


def thumbnails(sender: Sender, picture_url: str) -> Iterator[str]:
    """Request a thumbnail of a picture to fetch, and one of an uploaded picture."""
    body = {"url": picture_url, "width": 160, "height": 100}
    yield sender.submit("images", "thumbnail_url", "Thumbnail of a fetched picture", "/api/v1/thumbnails", body=body)
    fields = {"file": ("yard.png", make_picture(shade=140), "image/png"), "width": "120", "height": "120"}
    yield sender.submit(
        "images", "thumbnail_upload", "Thumbnail of an uploaded picture", "/api/v1/thumbnails", fields=fields
    )


def exports(sender: Sender) -> Iterator[str]:
    """Request one export of each file format."""
    for dataset, kind in (("invoices", "csv"), ("payments", "xlsx")):
        body = {"dataset": dataset, "format": kind}
        title = f"Export of all {dataset} as {kind}"
        yield sender.submit("exports", f"export_{kind}", title, "/api/v1/exports", body=body)


def reconciliation(sender: Sender, facts: dict[str, Any]) -> Iterator[str]:
    """Request the reconciliation of the newest full month."""
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
    return sender.client.send("POST", "/api/v1/payments/events", raw=raw, headers=headers, anonymous=True).status


def request_private_url(sender: Sender) -> int:
    """Request a thumbnail from a private address and return the status of the refusal."""
    body = {"url": PRIVATE_URL, "width": 10, "height": 10}
    return sender.client.send("POST", "/api/v1/thumbnails", body=body).status


def deliveries(sender: Sender, receiver: str, kept: Path) -> Iterator[str]:
    """Register the webhook endpoints that are missing and send each its events; arguments as :func:`register`."""
    register(sender.client, receiver, kept)
    for behaviour in BEHAVIOURS:
        for number in range(1, behaviour.deliveries + 1):
            title = f"Webhook {behaviour.event} to the {behaviour.kind} endpoint"
            payload = {"number": number, "run": sender.run}
            yield from sender.publish(f"webhook_{behaviour.kind}", title, behaviour.event, payload)


def register(client: Client, receiver: str, kept: Path) -> None:
    """Register the webhook endpoints that are not registered yet.

    Args:
        receiver: Root of the demo's receiver.
        kept: File that lists the registered endpoints over restarts.

    Raises:
        RequestFailed: the API refused one.
    """
    known = read_private(kept)
    for behaviour in BEHAVIOURS:
        url = receiver + behaviour.path
        # The 410 of the "gone" endpoint disables it, so each run registers it anew.
        if behaviour.kind != "gone" and known.get(behaviour.kind, {}).get("url") == url:
            continue
        body = {"url": url, "events": [behaviour.event]}
        made = client.ask("POST", "/api/v1/webhooks/endpoints", expect=http.HTTPStatus.CREATED, body=body)
        known[behaviour.kind] = {"url": url, **made}
        write_private(kept, known)


def make_picture(shade: int = 96) -> bytes:
    """Return a PNG of 640 by 400 pixels: an evening sky.

    Args:
        shade: Amount of blue, 0 … 255, to tell pictures apart.
    """
    sky = (bytes((250 - y // 2, 180 - y // 3, shade)) for y in range(PICTURE_HEIGHT))
    rows = b"".join(b"\0" + color * PICTURE_WIDTH for color in sky)
    header = struct.pack(">II5B", PICTURE_WIDTH, PICTURE_HEIGHT, *EIGHT_BIT_RGB)
    return PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
