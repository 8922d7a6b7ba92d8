"""Filters for the pages of the operations room."""

import re
from datetime import datetime

from django import template
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from switchyard.console import formatting

register = template.Library()

BACKTICKS = re.compile("`{1,2}")

register.filter("ago", formatting.ago)
register.filter("milliseconds", formatting.duration)
register.filter("filesize_room", formatting.size)
register.filter("seconds", lambda value: formatting.duration(value * 1_000))
register.filter("thousands", lambda value: f"{value:,}")


@register.filter
def as_rate(rate: float) -> str:
    """Return a rate: whole from 10 on, else with one digit."""
    return f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.1f}"


@register.simple_tag
def needs_broker(off: str, address: str = "") -> SafeString:
    """Return the attributes of a button, or of a link with an address, that does nothing while the broker is away.

    ``off`` is why, "" while the broker answers. Scripts of an open page switch it back.
    """
    if address:
        if off:
            return format_html('data-broker="{}" role="link" aria-disabled="true" title="{}"', address, off)
        return format_html('data-broker="{}" href="{}"', address, address)
    return format_html('data-broker disabled title="{}"', off) if off else mark_safe("data-broker")


@register.filter
def clock(value: str) -> str:
    """Return an ISO 8601 time as pages write it, ``22 Nov 2026 03:11:47``; any other text is returned unchanged."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return value
    return f"{at.day} {at:%b %Y %H:%M:%S}"


@register.filter
def code_marks(text: str) -> SafeString:
    """Return a sentence escaped, with what stands between single or double backticks as code."""
    parts = BACKTICKS.split(text)
    if len(parts) % 2 == 0:
        return format_html("{}", text)
    marked = (
        format_html('<code class="sy-code">{}</code>', part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )
    return mark_safe("".join(marked))  # noqa: S308  every part is escaped
