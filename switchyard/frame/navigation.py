"""Menu of the operations room: the room's pages, then the products' pages, then settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.contrib import admin
from django.db import DatabaseError
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from switchyard.alerts import queries as alerts
from switchyard.dead_letters import queries as dead_letters

# Apps whose pages the room has better ones for.
LEFT_OUT_APPS = frozenset(
    {
        *("switchyard_dead_letters", "switchyard_alerts", "switchyard_jobs", "switchyard_schedules"),
        "django_dramatiq",
    }
)
# Django's own names of these say less than the words that people use for them.
SETTINGS_WORDS = {
    ("switchyard_api", "Token"): "API tokens",
    ("auth", "User"): "Users",
    ("auth", "MenuGroup"): "Groups of users",
}
SETTINGS_APPS = frozenset({"switchyard_api", "auth"})
# Settings in this order, by the words of the menu; others follow by name.
SETTINGS_ORDER = ("API tokens", "Audit log", "Retention", "Users", "Groups")


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """A line of the menu.

    Args:
        icon: Name of a shape in ``icon.html``; "" for none.
        key: Letter that opens the page after ``g``; "" for none.
        badge: Number beside the name; "" for none.
    """

    title: str
    address: str
    icon: str = ""
    key: str = ""
    badge: str = ""
    active: bool = False


@dataclass(frozen=True, slots=True)
class MenuGroup:
    """Entries of the menu with a heading; ``folds`` are headings below it that open and close."""

    title: str
    entries: tuple[MenuEntry, ...] = ()
    folds: tuple[MenuGroup, ...] = ()

    @property
    def active(self) -> bool:
        """Whether the page that is shown is among the entries."""
        return any(entry.active for entry in self.entries)


@dataclass(frozen=True, slots=True)
class RoomPage:
    """A page of the room as the menu declares it: its right, and paths below which it is the current one."""

    title: str
    name: str
    icon: str
    key: str
    right: str


ROOM = (
    RoomPage("Overview", "switchyard-operations", "overview", "o", "switchyard_operations.view_operations"),
    RoomPage("Queues", "switchyard-queues", "queues", "q", "switchyard_operations.view_operations"),
    RoomPage("Actors", "switchyard-actors", "actors", "a", "switchyard_operations.view_operations"),
    RoomPage("Workers", "switchyard-operations-workers", "workers", "w", "switchyard_operations.view_operations"),
    RoomPage("Jobs", "admin:switchyard_jobs_job_changelist", "jobs", "j", "switchyard_jobs.view_job"),
    RoomPage("Schedules", "switchyard-schedules", "schedules", "s", "switchyard_schedules.view_schedulestate"),
    RoomPage(
        "Dead letters",
        "admin:switchyard_dead_letters_deadletter_changelist",
        "letters",
        "d",
        "switchyard_dead_letters.view_deadletter",
    ),
    RoomPage("Alerts", "admin:switchyard_alerts_alert_changelist", "alerts", "l", "switchyard_alerts.view_alert"),
    RoomPage("Bulk acts", "switchyard-bulk-acts", "bulk", "", "switchyard_bulk.view_bulkact"),
)
SETTINGS = (
    RoomPage("Audit log", "switchyard-audit", "audit", "", "switchyard_audit.view_auditentry"),
    RoomPage("Retention", "switchyard-retention", "retention", "", "switchyard_operations.view_operations"),
)


def menu(request: HttpRequest, known: list[dict[str, Any]] | None = None) -> tuple[MenuGroup, ...]:
    """Return the groups of the menu with the pages that the user may see; groups without any are left out.

    Args:
        known: What ``AdminSite.get_app_list`` returns for the request, where the page has it already.
    """
    listed = admin.site.get_app_list(request) if known is None else known
    found = [app for app in listed if app["app_label"] not in LEFT_OUT_APPS]
    folds = [MenuGroup(str(app["name"]), tuple(_model_entries(request, app))) for app in found if not _is_ours(app)]
    groups = [
        MenuGroup("Operations room", tuple(_room_entries(request, ROOM))),
        MenuGroup("Product", folds=tuple(fold for fold in folds if fold.entries)),
        MenuGroup("Settings", tuple(_settings_entries(request, found))),
    ]
    return tuple(group for group in groups if group.entries or group.folds)


def current(groups: Iterable[MenuGroup]) -> MenuEntry | None:
    """Return the entry of the page that is shown, or ``None``."""
    everything = [each for group in groups for each in (group, *group.folds)]
    return next((entry for group in everything for entry in group.entries if entry.active), None)


def _room_entries(request: HttpRequest, pages: Iterable[RoomPage]) -> Iterable[MenuEntry]:
    for page in pages:
        if not request.user.has_perm(page.right):
            continue
        try:
            address = reverse(page.name)
        except NoReverseMatch:  # a project that includes a part of the room
            continue
        active = request.path == address if page.icon == "overview" else request.path.startswith(_base(page, address))
        yield MenuEntry(page.title, address, page.icon, page.key, _badge(page), active)


def _base(page: RoomPage, address: str) -> str:
    # The quarantine and the silences stand beside their list: admin/switchyard_dead_letters/…
    return address.rsplit("/", 2)[0] + "/" if page.icon in ("letters", "alerts") else address


def _badge(page: RoomPage) -> str:
    count = {"letters": dead_letters.open_count, "alerts": alerts.open_count}.get(page.icon, int)
    try:
        return f"{found:,}" if (found := count()) else ""
    except DatabaseError:  # the page says so itself, where it needs the database
        return ""


def _is_ours(app: dict[str, Any]) -> bool:
    return app["app_label"].startswith("switchyard_") or app["app_label"] in SETTINGS_APPS


def _settings_entries(request: HttpRequest, found: Iterable[dict[str, Any]]) -> list[MenuEntry]:
    entries = list(_room_entries(request, SETTINGS))
    for app in found:
        if _is_ours(app):
            entries += (replace(entry, icon=entry.icon or "settings") for entry in _model_entries(request, app))
    known = {title: place for place, title in enumerate(SETTINGS_ORDER)}
    return sorted(entries, key=lambda entry: (known.get(entry.title, len(known)), entry.title))


def _model_entries(request: HttpRequest, app: dict[str, Any]) -> Iterable[MenuEntry]:
    for model in app["models"]:
        if not model.get("admin_url"):
            continue
        declared = getattr(admin.site.get_model_admin(model["model"]), "menu_title", None)
        title = str(model["name"]) if declared is None else declared
        if not title:
            continue
        address = model["admin_url"]
        yield MenuEntry(title[:1].upper() + title[1:], address, active=request.path.startswith(address))
