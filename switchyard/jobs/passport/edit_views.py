"""The page that changes a job which has not started."""

from __future__ import annotations

from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, ArgumentsRefused, BrokerError
from switchyard.jobs.admin_pages import check, may, render
from switchyard.jobs.listing.views import without_broker, without_job
from switchyard.jobs.passport.editing import EditableJob, due_time, edit_job, editable_job, words_of
from switchyard.jobs.queries import is_message_id


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
@never_cache
def edit(request: HttpRequest, job_id: str) -> HttpResponse:
    """Show a job's arguments and due time to edit; change them when the form is posted."""
    check(request)
    check(request, "run_job")
    if not is_message_id(job_id):
        return without_job(request, job_id)
    try:
        job = editable_job(job_id)
    except ActRefused as error:
        return _refused(request, job_id, error)
    except BrokerError:
        return without_broker(request)
    if job.due_at is None:
        check(request, "view_arguments")  # there is nothing else to edit
    if request.method != "POST":
        return _ask(request, job)
    sees = may(request, "view_arguments")
    given = request.POST.get("arguments", job.text)
    try:
        if sees and request.POST.get("version", job.version) != job.version:
            raise ActRefused(f"job {job.id}", "somebody changed its arguments meanwhile; these are the new ones")
        due = request.POST.get("due", "").strip()
        due_at = due_time(due) if job.due is not None and due and due != _shown_time(job) else None
        text = given if sees and given.replace("\r\n", "\n").strip() != job.text else None
        who, reason = Who.of_request(request), request.POST.get("reason", "").strip()
        changes = edit_job(job, text=text, due_at=due_at, who=who, reason=reason)
    except ActRefused as error:
        return _ask(request, job, wrong=error.fact, status=409)
    except (ArgumentsRefused, ValueError) as error:
        return _ask(request, job, given, wrong=str(error), status=422)
    except DatabaseError:
        fact = "The audit log cannot be written, so nothing was changed; check /readyz, then try again."
        return _ask(request, job, given, wrong=fact, status=503)
    except BrokerError as error:
        return _ask(request, job, given, wrong=str(error), status=503)
    messages.success(request, f"Changed {words_of(changes)}. The job has not started yet.")
    return redirect("switchyard-job", job_id)


def _refused(request: HttpRequest, job_id: str, error: ActRefused) -> HttpResponse:
    messages.warning(request, f"{error.fact[0].upper()}{error.fact[1:]}.")
    return redirect("switchyard-job", job_id)


def _ask(request: HttpRequest, job: EditableJob, text: str = "", *, wrong: str = "", status: int = 200) -> HttpResponse:
    context = {
        "title": f"Edit {job.message.actor_name}",
        "job": job,
        "text": text or job.text,
        "due": request.POST.get("due") or _shown_time(job),
        "wrong": wrong,
        "reason": request.POST.get("reason", ""),
    }
    return render(request, "switchyard_jobs/edit.html", context, status)


def _shown_time(job: EditableJob) -> str:
    return "" if job.due is None else f"{job.due:%Y-%m-%dT%H:%M:%S}"
