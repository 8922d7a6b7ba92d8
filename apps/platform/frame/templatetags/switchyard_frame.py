"""Data of the frame for its templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone

from apps.platform.frame.navigation import Entry, Group, current, menu
from apps.platform.frame.strip import STRIP, KeptVerdict
from apps.platform.frame.theme import KEYS_COOKIE, THEME_COOKIE, THEMES

register = template.Library()


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the content of a page.

    Args:
        theme: Chosen colour scheme; "" for that of the browser.
        keys: Whether keys lead to pages.
        where: Host that serves the page, so that two yards are not mistaken for one another.
    """

    groups: tuple[Group, ...]
    current: Entry | None
    theme: str
    keys: bool
    where: str
    at: datetime


@register.simple_tag(takes_context=True)
def room_frame(context: Mapping[str, Any]) -> Frame:
    """Return the frame of the page; without a menu for somebody who is not logged in, and in a pop-up window."""
    request = context.get("request")
    if request is None:
        return Frame((), None, "", True, "", timezone.now())
    theme = request.COOKIES.get(THEME_COOKIE, "")
    user = getattr(request, "user", None)
    groups = (
        menu(request) if user is not None and user.is_active and user.is_staff and not context.get("is_popup") else ()
    )
    return Frame(
        groups=groups,
        current=current(groups),
        theme=theme if theme in THEMES else "",
        keys=request.COOKIES.get(KEYS_COOKIE) != "off",
        where=request.get_host(),
        at=timezone.now(),
    )


@register.simple_tag
def room_strip() -> KeptVerdict:
    """Return the verdict that stands above every page."""
    return STRIP.verdict()
