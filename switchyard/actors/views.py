"""Pages of actors: the list, one actor, and the form that sends it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe
from dramatiq.actor import Actor
from dramatiq.middleware import MiddlewareError

from switchyard.actors import ended_jobs, failures, judgement, metrics, queries, services, sorting
from switchyard.actors.forms import SendForm
from switchyard.audit.services import Who, act
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError, NotFound, SwitchyardError
from switchyard.console.formatting import whole_duration
from switchyard.console.links import job_url, jobs_url, schedule_url
from switchyard.history import queries as history
from switchyard.history.filters import Filter
from switchyard.jobs.calls.parameters import signature_text
from switchyard.jobs.queries import is_job_id

VIEW, RUN = "switchyard_operations.view_operations", "switchyard_jobs.run_job"
JOBS, ARGUMENTS = "switchyard_jobs.view_job", "switchyard_jobs.view_arguments"
LETTERS = "switchyard_dead_letters.view_deadletter"
RECENT = 10


@require_safe
@never_cache
def actors(request: HttpRequest) -> HttpResponse:
    """List every actor of this code."""
    _require(request, VIEW)
    ran = metrics.all_of_this_machine()
    rows = [(facts, ran.get(facts.name)) for facts in queries.all_actors()]
    sort = request.GET.get("sort", "")
    context = {"title": "Actors", "actors": sorting.in_order(rows, sort), "heads": sorting.heads(sort)}
    return _render(request, "list.html", context)


@require_safe
@never_cache
def actor(request: HttpRequest, name: str) -> HttpResponse:
    """Show one actor."""
    _require(request, VIEW)
    found = _find(name)
    return _page(request, found, _form(request, found))


@require_POST
@sensitive_post_parameters()
def send(request: HttpRequest, name: str) -> HttpResponse:
    """Send the actor with the form's arguments and link the job; show the form again with its errors, as 422."""
    _require(request, VIEW)
    _require(request, RUN)
    found = _find(name)
    form = SendForm(found, request.POST)
    if not form.is_valid():
        form.focus_first_fault()
        return _page(request, found, form, status=422)
    delay_s, data = form.cleaned_data["delay_s"], form.cleaned_data
    try:
        with act("job.send", who=Who.of_request(request), target=name) as entry:
            job_id = services.send(
                found, form.call, delay_ms=round(delay_s * 1_000) if delay_s else None, tags=data["tags"],
                job_id=data["job_id"],
            )  # fmt: skip
            entry.count, entry.detail = 1, {"job": job_id, "queue": found.queue_name}
    except (BrokerError, MiddlewareError, SwitchyardError) as error:
        form.add_error(None, str(error))
        return _page(request, found, form, status=503 if isinstance(error, BrokerError) else 422)
    except DatabaseError:
        form.add_error(None, "The audit log cannot be written, so nothing was sent; check /readyz, then try again.")
        return _page(request, found, form, status=503)
    link, known = job_url(job_id), data["job_id"]
    shown = format_html('<a class="sy-link" href="{}">{}</a>', link, job_id)
    if job_id != known and is_job_id(known):
        messages.info(request, format_html("Nothing was sent: job {} holds the same unique key.", shown))
    else:
        messages.success(request, format_html("{} is enqueued as job {}.", name, shown))
    return redirect(link if link and request.user.has_perm(JOBS) else reverse("switchyard-actor", args=[name]))


def _form(request: HttpRequest, found: Actor[..., Any]) -> SendForm | None:
    if not request.user.has_perm(RUN):
        return None
    return SendForm(found, initial={"job_id": services.new_job_id()})


def _page(request: HttpRequest, found: Actor[..., Any], form: SendForm | None, *, status: int = 200) -> HttpResponse:
    name, may = found.actor_name, request.user.has_perm
    try:
        ended = ended_jobs.of_actor(name)
        rows = history.search(Filter(actor=name), limit=RECENT).rows if may(JOBS) else []
        recent = [(row, datetime_of(row.finished_at)) for row in rows]
        groups = failures.of_actor(name, ended.failures if may(JOBS) else None, letters=may(LETTERS))
    except DatabaseError:
        ended, recent, groups = None, None, None
    facts = queries.facts_of(found)
    context = {
        "title": name,
        "actor": facts,
        "schedule": schedule_url(name) if "periodic" in found.options else "",
        "soft_limit": whole_duration(facts.soft_limit_ms) if facts.soft_limit_ms else "",
        "signature": signature_text(found),
        "machine": metrics.of_this_machine(name),
        "ended": ended,
        "judged": judgement.of(ended),
        "groups": groups,
        "recent": recent,
        "jobs": jobs_url(actor=name),
        "may_see": {"jobs": may(JOBS), "letters": may(LETTERS), "arguments": may(ARGUMENTS)},
        "form": form,
    }
    return _render(request, "actor.html", context, status=status)


def _find(name: str) -> Actor[..., Any]:
    try:
        return queries.find_actor(name)
    except NotFound as error:
        raise Http404(str(error)) from error


def _render(request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    return TemplateResponse(request, f"switchyard_actors/{template}", context, status=status)


def _require(request: HttpRequest, right: str) -> None:
    if not request.user.has_perm(right):
        raise PermissionDenied(f"The missing right is {right}.")
