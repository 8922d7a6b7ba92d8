"""Endpoints for monitoring: metrics, liveness, readiness."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, OperationalError, ProgrammingError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from switchyard.audit.presentation import ShownEntry, newest_entries
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.conf import switchyard_settings
from switchyard.history.models import JobRow
from switchyard.operations import overview as page
from switchyard.operations.access import may_scrape
from switchyard.operations.database_deadline import answers_within
from switchyard.operations.metrics_broker import BrokerMetrics
from switchyard.operations.metrics_workers import WorkerMetrics
from switchyard.operations.server_state import OF_SOME_QUEUES, read_broker_state
from switchyard.operations.timeouts import NoAnswer, TimedCall

BROKER_SIDE_NAMES = frozenset(
    f"switchyard_{name}"
    for name in (
        "broker_up", "scheduler_up",
        "queue_depth", "queue_oldest_age_seconds", "queue_oldest_unfinished_age_seconds",
        "dead_letters", "queue_paused", "quarantined", "parked",
        "worker_up", "worker_slots", "worker_slots_busy", "worker_memory_bytes", "worker_restarts",
    )
)  # fmt: skip


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics of the broker and of this machine's workers; from loopback or with the token only."""
    if not may_scrape(request, switchyard_settings().metrics_token):
        body = "metrics: ask from loopback, or with 'Authorization: Bearer' and SWITCHYARD_METRICS_TOKEN\n"
        refusal = HttpResponse(body, status=401, content_type="text/plain; charset=utf-8")
        refusal["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return refusal
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BrokerMetrics())
    registry.register(WorkerMetrics(switchyard_settings().metrics_dir, taken=BROKER_SIDE_NAMES))
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Return 200: the process answers."""
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Return the state of each dependency; 503 when one is unavailable."""
    found = dependencies()
    ready = all(dependency.ok for dependency in found)
    answers = {dependency.name: {"ok": dependency.ok, "fact": dependency.fact} for dependency in found}
    return JsonResponse({"ready": ready, "dependencies": answers}, status=200 if ready else 503)


TIMEOUT_S = 2.0
# Every migrated yard has it.
_TABLE = "switchyard_dead_letters_deadletter"


@dataclass(frozen=True, slots=True)
class Dependency:
    """State of one dependency; ``fact`` is a description without address or secret."""

    name: str
    ok: bool
    fact: str


def _ask_broker() -> str:
    """Return why the broker accepts no work or may lose it, "" when it is healthy.

    A node of a cluster that is away is no reason, nor a half-moved slot: this process takes work for other queues.
    """
    found = facilities()
    server = read_broker_state(found)
    if server.refusal:
        return f"accepts no work: {server.refusal}"
    if server.pools_known:
        found.pools.read_all()
    return "; ".join(error.seen for error in server.errors if error.code not in OF_SOME_QUEUES)


def _ask_database() -> str:
    """Return what is missing in a database that answers, "" when it has this library's tables."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM {_TABLE} LIMIT 1")  # noqa: S608  a constant
    except (OperationalError, ProgrammingError):
        # Databases report a missing table by different errors.
        if _TABLE in connection.introspection.table_names():
            raise
        return f"table {_TABLE} is missing; run `manage.py migrate`"
    finally:
        connection.close()
    return ""


# One for each process: a dependency that hangs blocks one thread, however many probes come.
BROKER = TimedCall("broker", _ask_broker)
DATABASE = TimedCall("database", _ask_database)


def dependencies() -> tuple[Dependency, ...]:
    """Check the broker and the database; takes at most 2 s each."""
    return _broker(), _database()


def _broker() -> Dependency:
    try:
        refusal = BROKER.result(TIMEOUT_S)
    except (NoAnswer, BrokerError) as error:
        return Dependency("broker", False, _fact(error))
    if refusal:
        return Dependency("broker", False, refusal)
    return Dependency("broker", True, "answers")


def _database() -> Dependency:
    try:
        missing = DATABASE.result(TIMEOUT_S)
    except (NoAnswer, DatabaseError) as error:
        return Dependency("database", False, _fact(error))
    if missing:
        return Dependency("database", False, missing)
    return Dependency("database", True, "answers")


def _fact(error: Exception) -> str:
    # Error texts of the clients may contain addresses and users.
    if isinstance(error, NoAnswer):
        return f"no answer within {TIMEOUT_S:g} s"
    return error.kind if isinstance(error, BrokerError) else type(error).__name__


# Whether the yard is drawn or a plain table is remembered in the browser.
YARD_COOKIE, YARD_COOKIE_S = "switchyard_yard", 31_536_000
MOST_CHANGES = 6


@require_safe
@never_cache
def overview(request: HttpRequest) -> TemplateResponse:
    """Render the whole page, complete without JavaScript."""
    _check(request)
    chosen = request.GET.get("yard", "")
    plain = chosen == "table" if chosen else request.COOKIES.get(YARD_COOKIE) == "table"
    context = {"title": "Overview", **_content(request, plain=plain)}
    response = TemplateResponse(request, "switchyard_operations/overview.html", context)
    if chosen:
        shown = "table" if plain else "drawing"
        response.set_cookie(
            YARD_COOKIE, shown, max_age=YARD_COOKIE_S, samesite="Lax", httponly=True, secure=request.is_secure()
        )
    return response


@require_safe
@never_cache
def live(request: HttpRequest) -> TemplateResponse:
    """Render the part that changes."""
    _check(request)
    plain = request.COOKIES.get(YARD_COOKIE) == "table"
    return TemplateResponse(request, "switchyard_operations/live.html", _content(request, plain=plain))


def _content(request: HttpRequest, *, plain: bool) -> dict[str, Any]:
    room = page.overview()
    steps = _first_steps(room)
    is_ready = steps is not None and room.verdict.level == "ok"
    return {"room": room, "plain": plain, "changes": _changes(request), "first_steps": steps, "is_ready": is_ready}


def _first_steps(room: page.Room) -> dict[str, Any] | None:
    """Return what a page says before the first job; ``None`` once there was one, or where that is unknown."""
    if room.away or any(row.waiting or row.held or row.busy or row.dead for row, _ in room.rows):
        return None
    try:
        with answers_within(page.DATABASE_TIMEOUT_S):
            if JobRow.objects.exists():
                return None
    except DatabaseError:
        return None
    return {"only_log": all(url.startswith("log:") for url in switchyard_settings().alert_urls)}


def _changes(request: HttpRequest) -> list[ShownEntry] | None:
    """Return the newest acts of a day; ``None`` for who may not see them, and while the database is unavailable."""
    if not request.user.has_perm("switchyard_audit.view_auditentry"):
        return None
    try:
        with answers_within(page.DATABASE_TIMEOUT_S):
            return newest_entries(since=timezone.now() - timedelta(days=1), limit=MOST_CHANGES)
    except DatabaseError:
        return None


def _check(request: HttpRequest) -> None:
    if not request.user.has_perm("switchyard_operations.view_operations"):
        raise PermissionDenied("The missing right is switchyard_operations.view_operations.")
