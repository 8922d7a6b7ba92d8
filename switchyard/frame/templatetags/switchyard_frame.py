"""Data of the frame for its templates. Checks load the tags of all apps, and show no page: what reads it is late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django import template
from django.http import HttpRequest
from django.utils import timezone

from switchyard import __version__
from switchyard.console.links import admin_site

if TYPE_CHECKING:
    from switchyard.operations.overview import Room

register = template.Library()


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
        groups = menu(request) if admin_site().has_permission(request) else []
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
