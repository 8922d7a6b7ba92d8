"""Filters for the pages of the operations room."""

from __future__ import annotations

from datetime import datetime

from django import template

from apps.platform.console import formatting

register = template.Library()

register.filter("ago", formatting.ago)
register.filter("milliseconds", formatting.duration)
register.filter("filesize_room", formatting.size)


@register.filter
def seconds(value: float) -> str:
    """Return seconds as a time span."""
    return formatting.duration(value * 1_000)


@register.filter
def thousands(value: int) -> str:
    """Return a count with separators."""
    return f"{value:,}"


@register.filter
def clock(value: str) -> str:
    """Return an ISO 8601 time without fractions and zone; any other text is returned unchanged."""
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return value
