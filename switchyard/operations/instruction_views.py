"""Page that asks whether supervisors are to take no new work, take work again, or stop; nothing changes on GET."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from switchyard.audit.who import Who
from switchyard.broker.errors import BrokerError
from switchyard.broker.stores.pool_reports import QUIETED, VERBS, PoolReport, Verb
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted
from switchyard.console.room_view import require
from switchyard.operations import supervisors
from switchyard.operations.supervisors import WORKERS_AWAY, ReportedWorkers, reported_workers

TITLES = {"quiet": "Quiet {}", "resume": "Let {} take work again", "stop": "Stop {}"}


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def instruct(request: HttpRequest, verb: str) -> HttpResponseBase:
    """Ask for a reason, and instruct the supervisors that ``member`` or ``pool`` names."""
    require(request, "switchyard_operations.instruct_workers")
    if verb not in VERBS:
        raise Http404(f"no instruction is named {verb}")
    given = request.POST if request.method == "POST" else request.GET
    reason, refused, status = given.get("reason", "").strip()[: supervisors.LONGEST_REASON], "", 200
    hit: list[PoolReport] = []
    left: list[tuple[PoolReport, str]] = []
    workers = None
    try:
        workers = reported_workers()
        hit, left = _chosen(workers, verb, given.getlist("member"), given.getlist("pool"))
        if request.method == "POST" and hit:
            if not reason and verb != "resume":
                refused, status = "Write a reason. Nothing was done.", 422
            else:
                return _do(request, verb, hit, reason)
    except BrokerError as error:
        refused, status = str(error) if request.method == "POST" else WORKERS_AWAY, 503
    context = {**_context(verb, hit, left, workers), "refused": refused, "reason": reason}
    return TemplateResponse(request, "switchyard_operations/instruct.html", context, status=status)


def _chosen(
    workers: ReportedWorkers, verb: str, members: list[str], pools: list[str]
) -> tuple[list[PoolReport], list[tuple[PoolReport, str]]]:
    """Return the named supervisors that report, and those of them that are left out.

    Args:
        members: Names, each with ``@`` and the start of the supervisor that the page showed.
    """
    shown = {name: started for name, _, started in (member.rpartition("@") for member in members)}
    hit: list[PoolReport] = []
    left: list[tuple[PoolReport, str]] = []
    for report in workers.reports:
        if report.member not in shown and report.pool not in pools:
            continue
        why = supervisors.refusal(report, verb)
        if shown.get(report.member, str(report.started_at)) != str(report.started_at):
            why = "another process of this name has started since; choose it again"
        if why:
            left.append((report, why))
        else:
            hit.append(report)
    return hit, left


def _do(request: HttpRequest, verb: str, hit: list[PoolReport], reason: str) -> HttpResponseBase:
    done = supervisors.instruct(cast(Verb, verb), hit, who=Who.of_request(request), reason=reason)
    are = "is" if len(done) == 1 else "are"
    text = f"{counted(len(done), 'supervisor')} {are} told to {supervisors.TOLD[verb]}."
    messages.success(request, f"{text} Each obeys within 2 s, and its state says so.")
    return redirect("switchyard-operations-workers")


def _context(
    verb: str, hit: list[PoolReport], left: list[tuple[PoolReport, str]], workers: ReportedWorkers | None
) -> dict[str, Any]:
    chosen = {report.member for report in hit}
    everyone = () if workers is None else workers.reports
    taking = {
        report.pool for report in everyone if report.member not in chosen and report.state not in (QUIETED, "draining")
    }
    yard = declared_yard()
    known = {pool.name: pool for pool in yard.pools}
    silent = [name for name in dict.fromkeys(report.pool for report in hit) if name not in taking]
    lanes = [lane for name in silent if name in known for lane in yard.served_by(known[name])]
    return {
        "title": TITLES[verb].format("chosen workers"),
        "question": TITLES[verb].format(counted(len(hit), "supervisor")),
        "verb": verb,
        "reports": hit,
        "left": left,
        "busy": sum(report.busy for report in hit),
        "children": sum(len(report.children) for report in hit),
        "silent": silent,
        "lanes": lanes,
    }
