"""Reads of billing."""

from __future__ import annotations

from typing import NamedTuple

from django.db.models import Count, Q

from apps.billing.models import Outcome, Reconciliation
from apps.shop import queries as shop
from apps.shop.models import Invoice
from apps.shop.settlement import invoice_number


class Counts(NamedTuple):
    """Counts of a month's invoices: paid exactly, other, and corrected by any run so far."""

    matched: int
    unmatched: int
    corrected: int


def count_entries(reconciliation: Reconciliation) -> Counts:
    """Count a reconciliation's entries."""
    matched = Q(outcome=Outcome.MATCHED)
    found = reconciliation.entries.aggregate(
        matched=Count("id", filter=matched),
        unmatched=Count("id", filter=~matched),
        corrected=Count("id", filter=~Q(corrected_from="")),
    )
    return Counts(**found)


def invoice_meant(number: str, reference: str) -> Invoice | None:
    """Return the invoice of a payment: by its number, else by the number in the reference."""
    named = number or invoice_number(reference)
    return shop.invoice_numbered(named) if named else None
