"""Tags and filters of the room's pages: data of the frame, numbers and times, texts of jobs, and links from names.

Checks load the tags of all apps, and show no page: what reads it is late.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import dramatiq
from django import template
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from switchyard import __version__
from switchyard.broker.clock import datetime_of
from switchyard.broker.stores.batches import batch_of
from switchyard.conf import declared_yard
from switchyard.console import formatting, links

if TYPE_CHECKING:
    from switchyard.operations.overview import Room

register = template.Library()

BACKTICKS, WORD = re.compile("`{1,2}"), re.compile(r"([\w-]+)")

for thing in ("admin", "job", "queue", "actor", "letter", "alert", "schedule", "steps", "worker"):
    register.filter(f"{thing}_url", getattr(links, f"{thing}_url"))
register.filter(links.path_of)
register.filter(batch_of)
register.filter(formatting.pause_facts)
register.filter("ago", formatting.ago)
register.filter("milliseconds", formatting.duration)
register.filter("filesize_room", formatting.size)
register.filter("seconds", lambda value: formatting.duration(value * 1_000))
register.filter("thousands", lambda value: f"{value:,}")


@register.simple_tag(takes_context=True)
def room_frame(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts around a page; without a menu for a user whom the admin site refuses, and in a pop-up window.

    Returns:
        ``theme``: chosen colour scheme, "" for that of the browser. ``keys``: whether they lead to pages. ``where``:
        host that serves the page, so that two yards are not mistaken for one another. ``quarantined``: messages that
        nobody can read, ``None`` while the broker is away; like ``switched_off`` read where a page shows it.
    """
    from switchyard.frame.views import KEYS_COOKIE, THEME_COOKIE, THEMES, menu

    request: HttpRequest | None = context.get("request")
    cookies = {} if request is None else request.COOKIES
    groups: list[tuple[Any, ...]] = []
    if request is not None and hasattr(request, "user") and not context.get("is_popup"):
        groups = menu(request) if links.admin_site().has_permission(request) else []
    return {
        "groups": groups,
        "current": next((entry for _, entries in groups for entry in entries if entry.active), None),
        "theme": cookies.get(THEME_COOKIE) if cookies.get(THEME_COOKIE) in THEMES else "",
        "keys": cookies.get(KEYS_COOKIE) != "off",
        "where": "" if request is None else request.get_host(),
        "at": timezone.now(),
        "version": __version__,
        "switched_off": lambda: switched_off(_kept_room()),
        "quarantined": lambda: _kept_room().quarantined,
    }


@register.filter
def switched_off(room: Room) -> str:
    """Return the reason for which acts that need the broker are switched off; "" while it answers."""
    from switchyard.console.room_view import SWITCHED_OFF

    return SWITCHED_OFF if room.away else ""


@register.simple_tag(takes_context=True)
def room_strip(context: Mapping[str, Any]) -> Room:
    """Return the verdict that stands above every page; after an act, whose page says a message, as it is now."""
    return _kept_room(now=bool(context.get("messages")))


def _kept_room(*, now: bool = False) -> Room:
    from switchyard.frame.views import PAGE_S, STRIP

    return STRIP.verdict(0.0 if now else PAGE_S)


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


@register.filter
def named(sentence: str, subject: str = "") -> SafeString:
    """Return a sentence escaped, with the names of actors and its subject as links, and code between backticks.

    A name without an underscore may be an ordinary word: it is a link only as the sentence's subject, the first time.
    """
    actors, queues = dramatiq.get_broker().actors, {queue.name for queue in declared_yard().queues}
    parts: list[str] = []
    left = subject
    for place, text in enumerate(sentence.split("`") if sentence.count("`") % 2 == 0 else [sentence]):
        if place % 2:
            parts.append(format_html('<code class="sy-code">{}</code>', text))
            continue
        for word in WORD.split(text):
            address = ""
            if word == left or (word in actors and "_" in word):
                address = links.queue_url(word) if word in queues else links.actor_url(word) if word in actors else ""
            if address and word == left:
                left = ""
            parts.append(format_html('<a class="sy-link sy-code" href="{}">{}</a>', address, word) if address else word)
    return format_html_join("", "{}", ((part,) for part in parts))


@register.filter
def get_item(mapping: Mapping[str, Any], name: str) -> Any:
    """Return the value of a name that a variable holds."""
    return mapping.get(name, "")


@register.filter
def words(name: str) -> str:
    """Return an identifier such as ``time_limit`` as words."""
    return name.replace("_", " ")


@register.filter
def moment(at_ms: int | None) -> datetime | None:
    """Return a time in ms since the epoch as one in UTC."""
    return None if at_ms is None else datetime_of(at_ms)


def _late(path: str) -> Callable[[Any], Any]:
    """Return a function of the jobs' modules that is imported with its first call."""
    module, _, name = path.rpartition(".")
    return lambda value: getattr(import_module(f"switchyard.jobs.{module}"), name)(value)


for name, path in (
    ("error_line", "presentation.error_line"),
    ("arguments_line", "presentation.arguments_line"),
    ("arguments_of", "presentation.message_line"),
    ("as_json", "presentation.written"),
    ("limit_ms", "queries.limit_of"),
):
    register.filter(name, _late(path))
