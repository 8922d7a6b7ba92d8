"""Data of the frame for its templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone

from apps.platform.frame.navigation import Entry, Group, current, menu

register = template.Library()

THEME_COOKIE = "switchyard_theme"
THEMES = ("light", "dark")


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the content of a page.

    Args:
        theme: Chosen colour scheme; "" for that of the browser.
        where: Host that serves the page, so that two yards are not mistaken for one another.
    """

    groups: tuple[Group, ...]
    current: Entry | None
    theme: str
    where: str
    at: datetime


@register.simple_tag(takes_context=True)
def room_frame(context: Mapping[str, Any]) -> Frame:
    """Return the frame of the page; without a menu for somebody who is not logged in, and in a pop-up window."""
    request = context.get("request")
    if request is None:
        return Frame((), None, "", "", timezone.now())
    theme = request.COOKIES.get(THEME_COOKIE, "")
    user = getattr(request, "user", None)
    groups = (
        menu(request) if user is not None and user.is_active and user.is_staff and not context.get("is_popup") else ()
    )
    return Frame(groups, current(groups), theme if theme in THEMES else "", request.get_host(), timezone.now())
