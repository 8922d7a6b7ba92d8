"""Django side of the sample work: facts about the shop, delayed newsletters, webhook endpoints of earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from demo.identity import read_private, write_private

STATEMENTS = 4
SOON_MS = 20_000
LATE_MS = 600_000
HEADLINE = "This week in the yard"


def find_facts() -> dict[str, Any]:
    """Return ids, months and an open invoice of the sample shop, as values that JSON can hold.

    Returns:
        ``statements``: ``[customer id, month]`` pairs; ``month``: the newest full month; ``open_invoice``: number,
        amount and currency of an invoice without a payment; counts of ``customers``, ``invoices`` and ``payments``.
    """
    from apps.shop import months, queries
    from apps.shop.models import Customer, Invoice, InvoiceStatus

    running, *full = queries.months_with_invoices()
    month = full[0] if full else running
    first, after = months.bounds(month)
    buyers = Customer.objects.filter(invoices__issued_on__gte=first, invoices__issued_on__lt=after)
    unpaid = Invoice.objects.filter(status=InvoiceStatus.OPEN, payments__isnull=True).order_by("-id").first()
    return {
        "statements": [[customer.pk, month] for customer in buyers.distinct().order_by("id")[:STATEMENTS]],
        "month": month,
        "open_invoice": None
        if unpaid is None
        else {"number": unpaid.number, "amount": str(unpaid.total), "currency": unpaid.currency},
        "customers": queries.count_customers(),
        "invoices": queries.count_invoices(),
        "payments": queries.count_payments(),
    }


def enqueue_newsletters(owner: str) -> dict[str, str]:
    """Enqueue one newsletter in 20 s, and one in 10 min that the demo will cancel.

    The API has no delay, so they are enqueued as an app of the yard enqueues its work.

    Args:
        owner: ``Token.owner_key`` of the token that may follow and cancel them.

    Returns:
        ``later`` and ``cancelled``: their job ids.
    """
    from apps.mail.actors import newsletter
    from switchyard.jobs.services import submit

    def enqueue(delay_ms: int, to: str) -> str:
        paragraphs = ["Twelve new customers came aboard.", "The slow pool printed their first statements."]
        content = {"to": to, "headline": HEADLINE, "paragraphs": paragraphs}
        return submit(newsletter, owner=owner, delay_ms=delay_ms, kwargs=content)

    return {
        "later": enqueue(SOON_MS, "later@readers.example"),
        "cancelled": enqueue(LATE_MS, "never@readers.example"),
    }


def move_endpoints(kept: Path, receiver: str) -> int:
    """Point the endpoints of earlier runs to the receiver's present address; return how many changed.

    The receiver gets another port when a different program has taken its last one. Deliveries that wait for a retry
    follow the endpoint.

    Args:
        kept: File that lists the endpoints the demo registered.
        receiver: Root of the receiver, without a slash at the end.
    """
    from apps.webhooks.models import Endpoint

    known = read_private(kept)
    moved = {
        kind: {**endpoint, "url": receiver + urlsplit(endpoint["url"]).path}
        for kind, endpoint in known.items()
        if not endpoint["url"].startswith(f"{receiver}/")
    }
    for endpoint in moved.values():
        Endpoint.objects.filter(pk=endpoint["id"]).update(url=endpoint["url"])
    if moved:
        write_private(kept, known | moved)
    return len(moved)
