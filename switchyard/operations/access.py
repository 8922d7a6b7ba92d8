"""Access to the metrics: from this machine, or with the token."""

from __future__ import annotations

import hmac
import ipaddress

from django.http import HttpRequest

FORWARDED = frozenset(("forwarded", "via", "x-real-ip", "cf-connecting-ip"))


def may_scrape(request: HttpRequest, token: str) -> bool:
    """Return whether a request comes from loopback and through no proxy, or carries the token.

    Args:
        token: Configured token; "" accepts none.
    """
    return is_from_loopback(request) or _has_token(request, token)


def is_from_loopback(request: HttpRequest) -> bool:
    """Return whether a request comes from this machine and through no proxy."""
    names = [name.lower() for name in request.headers]
    if any(name in FORWARDED or name.startswith("x-forwarded") or name.endswith("client-ip") for name in names):
        return False
    try:
        address = ipaddress.ip_address(request.META.get("REMOTE_ADDR") or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _has_token(request: HttpRequest, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    return bool(token) and scheme.lower() == "bearer" and right
