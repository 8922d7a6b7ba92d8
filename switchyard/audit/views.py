"""The page of the audit log: only to read, with its filter in the address. A page begins behind a row, by its id."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import ACTS, as_json, conditions_of, entries, shown
from switchyard.console.export import MOST, export_of
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, require
from switchyard.middleware.redaction import HIDDEN

RIGHT = "switchyard_audit.view_auditentry"
PAGE = 50
# Details with values of arguments: of an edit by name ("changes" up to 0.10), of a pause, in the filter of a bulk act.
WITH_ARGUMENTS = ("changed", "changes", "argument", "filter")


@require_safe
def audit_log(request: HttpRequest) -> HttpResponse:
    """Show one page of the log, newest first."""
    require(request, RIGHT)
    if (file := export_of(request, "audit", lambda: _exported(request))) is not None:
        return file
    address, query, wrong = reverse("switchyard-audit"), dict[str, str](), ""
    found = list[AuditEntry]()
    try:
        query = conditions_of(request.GET.dict())
        found = list(_older(entries(query), request.GET.get("before", ""))[: PAGE + 1])
    except ValueError as error:
        wrong = str(error)
    context = {
        "title": "Audit log",
        "rows": [_shown(entry, arguments=holds(request.user, ARGUMENTS)) for entry in found[:PAGE]],
        "given": request.GET if wrong else query,
        "wrong": wrong,
        "acts": ACTS,
        "vias": AuditEntry.Via.choices,
        "outcomes": AuditEntry.Outcome.choices,
        "address": address,
        "newest": f"{address}?{urlencode(query)}" if "before" in request.GET else "",
        "older": f"{address}?{urlencode({**query, 'before': found[PAGE - 1].pk})}" if len(found) > PAGE else "",
    }
    return RoomResponse(request, "switchyard_audit/log.html", context, status=400 if wrong else 200)


def _exported(request: HttpRequest) -> Iterator[dict[str, Any]]:
    """Return the acts that the filter selects, newest first; ``ValueError`` of an unusable one."""
    found, arguments = entries(conditions_of(request.GET.dict())), holds(request.user, ARGUMENTS)
    listed = (_shown(entry, arguments=arguments) for entry in found.order_by("-id")[: MOST + 1])
    return ({**as_json(row["entry"]), "detail": row["detail"]} for row in listed)


def _older(rows: QuerySet[AuditEntry], before: str) -> QuerySet[AuditEntry]:
    """Return the rows that are older than the row of an id, all for ""; ``ValueError`` where it is none."""
    if before and not (before.isascii() and before.isdecimal()):
        raise ValueError(f"before: {before!r:.40} is not an id of a row; follow the link Older")
    return rows.filter(pk__lt=int(before[:18])) if before else rows


def _shown(entry: AuditEntry, *, arguments: bool) -> dict[str, Any]:
    detail = {name: value for name, value in entry.detail.items() if value not in ("", None, [], {})}
    if not arguments:
        entry.without_value()
        detail |= {name: _without_values(name, detail[name]) for name in WITH_ARGUMENTS if name in detail}
    return shown(entry) | {"detail": detail}


def _without_values(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return HIDDEN
    shown = {"(due)"} if name != "filter" else value.keys() - {"argument"}
    return {key: each if key in shown else HIDDEN for key, each in value.items()}
