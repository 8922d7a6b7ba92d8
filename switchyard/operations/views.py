"""Endpoints for monitoring: metrics, liveness, readiness."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from switchyard.conf import switchyard_settings
from switchyard.operations.access import may_scrape
from switchyard.operations.health import dependencies
from switchyard.operations.metrics_broker import BrokerMetrics
from switchyard.operations.metrics_workers import WorkerMetrics

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
