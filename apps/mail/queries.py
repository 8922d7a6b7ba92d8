"""Reads of the mail product."""

from __future__ import annotations

from apps.shop.models import Customer


def name_of(address: str) -> str:
    """Return the name of the customer with this address, or ``""``."""
    return Customer.objects.filter(email=address).values_list("name", flat=True).first() or ""
