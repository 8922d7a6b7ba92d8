"""Data of the frame for its templates. Checks load the tags of all apps, and show no page: what reads it is late."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from django import template
from django.utils import timezone

from switchyard import __version__
from switchyard.console.links import admin_site

if TYPE_CHECKING:
    from switchyard.frame.navigation import KeptVerdict, MenuEntry, MenuGroup

register = template.Library()


class Frame(msgspec.Struct, frozen=True):
    """Parts around the content of a page.

    Args:
        theme: Chosen colour scheme; "" for that of the browser.
        keys: Whether keys lead to pages.
        where: Host that serves the page, so that two yards are not mistaken for one another.
    """

    groups: tuple[MenuGroup, ...]
    current: MenuEntry | None
    theme: str
    keys: bool
    where: str
    at: datetime

    @property
    def version(self) -> str:
        return __version__

    @property
    def switched_off(self) -> str:
        """Reason for which acts that need the broker are switched off; "" while it answers."""
        return _kept_verdict().switched_off

    @property
    def quarantined(self) -> int | None:
        """Messages that nobody can read, as of some seconds ago; ``None`` while the broker is away."""
        return _kept_verdict().quarantined


@register.simple_tag(takes_context=True)
def room_frame(context: Mapping[str, Any]) -> Frame:
    """Return the frame of the page; without a menu for a user whom the admin site refuses, and in a pop-up window."""
    from switchyard.frame.navigation import current, menu
    from switchyard.frame.views import KEYS_COOKIE, THEME_COOKIE, THEMES

    request = context.get("request")
    if request is None:
        return Frame((), None, "", True, "", timezone.now())
    theme = request.COOKIES.get(THEME_COOKIE, "")
    shown = hasattr(request, "user") and admin_site().has_permission(request) and not context.get("is_popup")
    groups = menu(request) if shown else ()
    return Frame(
        groups=groups,
        current=current(groups),
        theme=theme if theme in THEMES else "",
        keys=request.COOKIES.get(KEYS_COOKIE) != "off",
        where=request.get_host(),
        at=timezone.now(),
    )


@register.simple_tag(takes_context=True)
def room_strip(context: Mapping[str, Any]) -> KeptVerdict:
    """Return the verdict that stands above every page; after an act, whose page says a message, as it is now."""
    return _kept_verdict(now=bool(context.get("messages")))


def _kept_verdict(*, now: bool = False) -> KeptVerdict:
    from switchyard.frame.navigation import PAGE_S, STRIP

    return STRIP.verdict(0.0 if now else PAGE_S)
