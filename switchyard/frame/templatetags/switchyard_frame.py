"""Data of the frame for its templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import escape, strip_tags
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

from switchyard.frame.navigation import MenuEntry, MenuGroup, current, menu
from switchyard.frame.row_facts import worded
from switchyard.frame.strip import PAGE_S, STRIP, KeptVerdict
from switchyard.frame.theme import KEYS_COOKIE, THEME_COOKIE, THEMES

register = template.Library()


@dataclass(frozen=True, slots=True)
class Frame:
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
    def switched_off(self) -> str:
        """Reason for which acts that need the broker are switched off; "" while it answers."""
        return STRIP.verdict(PAGE_S).switched_off

    @property
    def quarantined(self) -> int | None:
        """Messages that nobody can read, as of some seconds ago; ``None`` while the broker is away."""
        return STRIP.verdict(PAGE_S).quarantined


@register.simple_tag(takes_context=True)
def room_frame(context: Mapping[str, Any]) -> Frame:
    """Return the frame of the page; without a menu for somebody who is not logged in, and in a pop-up window."""
    request = context.get("request")
    if request is None:
        return Frame((), None, "", True, "", timezone.now())
    theme = request.COOKIES.get(THEME_COOKIE, "")
    user = getattr(request, "user", None)
    shown = user is not None and user.is_active and user.is_staff and not context.get("is_popup")
    groups = menu(request, context.get("available_apps")) if shown else ()
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
    return STRIP.verdict(0.0 if context.get("messages") else PAGE_S)


@register.filter
def with_labels(cells: Sequence[SafeString], headers: Sequence[Mapping[str, Any]]) -> list[SafeString]:
    """Return the cells of a row of Django's list: the name of its column as ``data-label``, a truth as a word."""
    return [_labelled(worded(cell), header) for cell, header in zip(cells, headers, strict=False)]


def _labelled(cell: SafeString, header: Mapping[str, Any]) -> SafeString:
    name = strip_tags(str(header.get("text", ""))).strip()
    # The first cell with a link is the row's heading, and the box that chooses a row has no name to show.
    if not name or not cell.startswith("<td") or "action-checkbox" in cell[:40]:
        return cell
    return mark_safe(f'<td data-label="{escape(capfirst(name))}"{cell[3:]}')  # noqa: S308  Django made the cell
