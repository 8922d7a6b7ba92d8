"""Endpoints for monitoring: metrics, liveness, readiness."""

import hmac
import ipaddress
from typing import Any

from django.db import DatabaseError, OperationalError, ProgrammingError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.conf import switchyard_settings
from switchyard.operations.metrics import BrokerMetrics, WorkerMetrics
from switchyard.operations.supervisors import read_broker_state
from switchyard.operations.timeouts import NoAnswer, TimedCall

FORWARDED = frozenset(("forwarded", "via", "x-real-ip", "cf-connecting-ip"))


def may_scrape(request: HttpRequest, token: str) -> bool:
    """Return whether a request comes from loopback and through no proxy, or carries the token; "" accepts none."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    return is_from_loopback(request) or (bool(token) and scheme.lower() == "bearer" and right)


def is_from_loopback(request: HttpRequest) -> bool:
    """Return whether a request comes from this machine and through no proxy."""
    names = [name.lower() for name in request.headers]
    if any(name in FORWARDED or name.startswith("x-forwarded") or name.endswith("client-ip") for name in names):
        return False
    try:
        address = ipaddress.ip_address(request.META.get("REMOTE_ADDR") or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


TIMEOUT_S = 2.0
# Every migrated yard has it.
_TABLE = "switchyard_dead_letters_deadletter"


def _ask_broker() -> str:
    """Return why the broker accepts no work or may lose it, "" when it is healthy.

    What stops some queues is no reason: this process takes work for the others.
    """
    found = facilities()
    server = read_broker_state(found)
    if server.refusal:
        return f"accepts no work: {server.refusal}"
    if server.pools_known:
        found.pools.read_all()
    return "; ".join(error.seen for error in server.errors if not error.partial)


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


def dependencies() -> dict[str, dict[str, Any]]:
    """Check the broker and the database, in at most 2 s each; a ``fact`` has no address and no secret."""
    return {"broker": _checked(BROKER), "database": _checked(DATABASE)}


def _checked(call: TimedCall[str]) -> dict[str, Any]:
    try:
        wrong = call.result(TIMEOUT_S)
    except NoAnswer:
        wrong = f"no answer within {TIMEOUT_S:g} s"
    except BrokerError as error:
        wrong = error.kind
    except DatabaseError as error:  # its text may contain addresses and users
        wrong = type(error).__name__
    return {"ok": not wrong, "fact": wrong or "answers"}


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
    registry.register(WorkerMetrics(switchyard_settings().metrics_dir))
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
    ready = all(dependency["ok"] for dependency in found.values())
    return JsonResponse({"ready": ready, "dependencies": found}, status=200 if ready else 503)
