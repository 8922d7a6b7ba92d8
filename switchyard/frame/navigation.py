"""Menu of the operations room, and the strip with the verdict that every page shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from django.apps import apps
from django.db import DatabaseError
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from switchyard.alerts import notice as alerts
from switchyard.console.links import admin_site, admin_url
from switchyard.dead_letters import queries as dead_letters

if TYPE_CHECKING:
    from switchyard.operations.overview import Room

# Of a page: one that follows another costs nothing, and the strip of an open one is read anew soon after.
PAGE_S = 5.0
# Of the strip alone, which open pages fetch.
FRESH_S = 2.0
# An older one is not shown while it is read anew.
OLD_S = 15.0


class VerdictStrip:
    """The last overview of this process. A page that finds it being read elsewhere shows the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        # With the time at which the read ended.
        self._kept: tuple[Room, float] | None = None

    def verdict(self, fresh_s: float = FRESH_S) -> Room:
        """Return the overview with its verdict, read anew when it is older than ``fresh_s``."""
        if (kept := self._fresh(fresh_s)) is not None:
            return kept
        before = self._fresh(OLD_S)
        if not self._lock.acquire(blocking=before is None) and before is not None:
            return before
        try:
            return self._fresh(fresh_s) or self._read()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Have the next page read the yard."""
        self._kept = None

    def _fresh(self, fresh_s: float) -> Room | None:
        kept = self._kept
        return kept[0] if kept and self._clock() - kept[1] < fresh_s else None

    def _read(self) -> Room:
        # Imported here: Django's check of templates imports the tags, which import this module.
        from switchyard.operations import overview

        room = overview.overview()
        self._kept = room, self._clock()
        return room


STRIP = VerdictStrip()


# Apps whose pages the room has better ones for.
LEFT_OUT_APPS = {f"switchyard_{name}" for name in ("dead_letters", "alerts", "jobs", "schedules", "operations")}
LEFT_OUT_APPS |= {"django_dramatiq"}


class MenuEntry(NamedTuple):
    """A line of the menu, with the icon and the key of its page; ``badge``: number beside the name, "" for none."""

    title: str
    address: str
    icon: str
    key: str = ""
    badge: str = ""
    active: bool = False


class RoomPage(NamedTuple):
    """A page of the room as the menu declares it.

    An app of the project adds pages to the menu by ``room_pages`` of its ``AppConfig``, a tuple of tuples like this.
    ``name`` is that of its URL, ``icon`` that of a shape in ``icon.html``; ``key`` opens it after ``g``, "" for none.
    """

    title: str
    name: str
    icon: str
    key: str
    right: str


ROOM = (
    RoomPage("Overview", "switchyard-operations", "overview", "o", "switchyard_operations.view_operations"),
    RoomPage("Queues", "switchyard-queues", "queues", "q", "switchyard_operations.view_operations"),
    RoomPage("Limits", "switchyard-limits", "limits", "", "switchyard_operations.view_operations"),
    RoomPage("Actors", "switchyard-actors", "actors", "a", "switchyard_operations.view_operations"),
    RoomPage("Workers", "switchyard-operations-workers", "workers", "w", "switchyard_operations.view_operations"),
    RoomPage("Jobs", "switchyard-jobs", "jobs", "j", "switchyard_jobs.view_job"),
    RoomPage("Batches", "switchyard-batches", "batches", "", "switchyard_jobs.view_job"),
    RoomPage("Schedules", "switchyard-schedules", "schedules", "s", "switchyard_schedules.view_schedulestate"),
    RoomPage("Dead letters", "switchyard-letters", "letters", "d", "switchyard_dead_letters.view_deadletter"),
    RoomPage("Alerts", "switchyard-alerts", "alerts", "l", "switchyard_alerts.view_alert"),
    RoomPage("Bulk acts", "switchyard-bulk-acts", "bulk", "", "switchyard_bulk.view_bulkact"),
    RoomPage("Audit log", "switchyard-audit", "audit", "", "switchyard_audit.view_auditentry"),
)


def menu(request: HttpRequest) -> list[tuple[str, list[MenuEntry]]]:
    """Return the groups of the menu by title, with the pages that the user may see; those without any are left out."""
    found = (("Operations room", _room_entries(request)), ("Administration", _admin_entries(request)))
    return [(title, entries) for title, of in found if (entries := list(of))]


def _room_entries(request: HttpRequest) -> Iterable[MenuEntry]:
    added = (RoomPage(*page) for config in apps.get_app_configs() for page in getattr(config, "room_pages", ()))
    for page in (*ROOM, *added):
        if not request.user.has_perm(page.right):
            continue
        try:
            address = reverse(page.name)
        except NoReverseMatch:  # a project that includes a part of the room
            continue
        active = request.path == address if page.icon == "overview" else request.path.startswith(address)
        yield MenuEntry(page.title, address, page.icon, page.key, _badge(page), active)


def _badge(page: RoomPage) -> str:
    count = {"letters": dead_letters.open_count, "alerts": alerts.open_count}.get(page.icon, int)
    try:
        return f"{found:,}" if (found := count()) else ""
    except DatabaseError:  # the page says so itself, where it needs the database
        return ""


def _admin_entries(request: HttpRequest) -> Iterable[MenuEntry]:
    try:
        listed = admin_site().get_app_list(request) if admin_url("index") else ()
    except NoReverseMatch:  # a check names the site that the project mounts in its place
        return
    for app in listed:
        # A site of the project's own may list more than apps, without a page for all of it.
        if app["app_label"] not in LEFT_OUT_APPS and app.get("app_url"):
            yield MenuEntry(str(app["name"]), app["app_url"], "settings")
