"""Cancellation of the jobs that were chosen in the list, after a question."""

from __future__ import annotations

from collections import Counter

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from apps.platform.audit.services import Who
from apps.platform.jobs.admin_pages import check, render
from apps.platform.jobs.listing.pages import LIMIT
from apps.platform.jobs.listing.views import without_broker
from apps.platform.jobs.queries import is_message_id
from apps.platform.jobs.running import records_of
from apps.platform.jobs.services import request_cancel
from broker.errors import BrokerError

# Outcome of a job, after its count: of one and of several.
ANSWERS = {
    "cancelled": ("was cancelled and will not start", "were cancelled and will not start"),
    "asked": ("runs and stops within 10 seconds", "run and stop within 10 seconds"),
    "ended": ("had ended already", "had ended already"),
    "unknown": ("is not known any longer", "are not known any longer"),
}


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def cancel_chosen(request: HttpRequest) -> HttpResponse:
    """Ask whether to cancel the jobs that ``job`` names; request their cancellation when the answer is posted."""
    check(request)
    check(request, "cancel_job")
    given = request.POST if request.method == "POST" else request.GET
    ids = [id_ for id_ in dict.fromkeys(given.getlist("job")) if is_message_id(id_)][:LIMIT]
    try:
        if request.method != "POST" or not ids:
            known = records_of(ids)
            context = {"title": "Cancel chosen jobs", "jobs": [(id_, known.get(id_)) for id_ in ids]}
            return render(request, "switchyard_jobs/chosen.html", context)
        who, reason = Who.of_request(request), request.POST.get("reason", "").strip()
        answers = Counter(request_cancel(id_, who=who, reason=reason) for id_ in ids)
    except BrokerError:
        return without_broker(request)
    level = messages.SUCCESS if answers["cancelled"] + answers["asked"] == len(ids) else messages.WARNING
    messages.add_message(request, level, answer_text(answers))
    return redirect("admin:switchyard_jobs_job_changelist")


def answer_text(answers: Counter[str]) -> str:
    """Return what became of the jobs: ``2 jobs were cancelled and will not start; 1 job had ended already.``."""
    parts = [
        f"{count} job{'' if count == 1 else 's'} {one if count == 1 else many}"
        for name, (one, many) in ANSWERS.items()
        if (count := answers[name])
    ]
    return f"{'; '.join(parts)}."
