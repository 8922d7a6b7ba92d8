"""The admin's sidebar: the operations room first, then every installed app."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from apps.platform.dead_letters.queries import open_count

ROOM_MODELS = frozenset(
    {
        ("switchyard_dead_letters", "DeadLetter"),
        ("switchyard_alerts", "Alert"),
        ("switchyard_jobs", "Job"),
        ("switchyard_schedules", "ScheduleState"),
    }
)
LEFT_OUT_APPS = frozenset({"django_dramatiq"})


def groups(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the sidebar's groups for this user."""
    may = request.user.has_perm
    may_look, may_triage = may("switchyard_operations.view_operations"), may("switchyard_dead_letters.view_deadletter")
    room = [
        _item("Overview", "alt_route", "switchyard-operations", may_look, exact=True),
        _item("Actors", "function", "switchyard-actors", may_look),
        _item("Queues", "low_priority", "switchyard-queues", may_look),
        _item("Workers", "engineering", "switchyard-operations-workers", may_look),
        _item("Jobs", "format_list_bulleted", "admin:switchyard_jobs_job_changelist", may("switchyard_jobs.view_job")),
        _item("Schedules", "schedule", "switchyard-schedules", may("switchyard_schedules.view_schedulestate")),
        _item(
            "Dead letters",
            "outbound",
            "admin:switchyard_dead_letters_deadletter_changelist",
            may_triage,
            badge=_open_letters() if may_triage else "",
        ),
        _item(
            "Quarantine",
            "block",
            "admin:switchyard_dead_letters_quarantine",
            may_triage,
        ),
        _item(
            "Alerts", "notifications", "admin:switchyard_alerts_alert_changelist", may("switchyard_alerts.view_alert")
        ),
        _item("Bulk acts", "checklist", "switchyard-bulk-acts", may("switchyard_bulk.view_bulkact")),
        _item("Audit log", "receipt_long", "switchyard-audit", may("switchyard_audit.view_auditentry")),
    ]
    quarantine = reverse("admin:switchyard_dead_letters_quarantine")
    letters = reverse("admin:switchyard_dead_letters_deadletter_changelist")
    by_title = {item["title"]: item for item in room}
    by_title["Dead letters"]["active"] = request.path.startswith(letters) and request.path != quarantine
    by_title["Quarantine"]["active"] = request.path == quarantine
    others = [_app(app) for app in admin.site.get_app_list(request) if app["app_label"] not in LEFT_OUT_APPS]
    return [{"title": "Operations room", "items": room}, *(group for group in others if group["items"])]


def _open_letters() -> str:
    """Return the number of dead letters to triage, or "" for none."""
    count = open_count()
    return f"{count:,}" if count else ""


def _item(
    title: str, icon: str, address: str, allowed: bool, *, exact: bool = False, badge: str = ""
) -> dict[str, Any]:
    link = reverse(address)
    item: dict[str, Any] = {"title": title, "icon": icon, "link": link, "permission": lambda request: allowed}
    if exact:
        item["active"] = lambda request: request.path == link
    # unfold draws an empty badge where a callback of it returns nothing.
    return item | ({"badge": badge, "badge_variant": "danger"} if badge else {})


def _app(app: dict[str, Any]) -> dict[str, Any]:
    models = [
        model
        for model in app["models"]
        if model.get("admin_url") and (app["app_label"], model["object_name"]) not in ROOM_MODELS
    ]
    items = [{"title": str(model["name"]), "link": model["admin_url"]} for model in models]
    return {"title": str(app["name"]), "collapsible": True, "separator": True, "items": items}
