"""Acts on the jobs that were ticked in the list, after a question: cancel them, run them now, run them again."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.contrib import messages
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerError
from switchyard.broker.stores.job_record import Job
from switchyard.console.room_view import RoomResponse, not_answered
from switchyard.jobs.admin_pages import check
from switchyard.jobs.listing.chosen_acts import ACTS, ChosenAct, chosen_jobs
from switchyard.jobs.listing.pages import LIMIT
from switchyard.jobs.listing.views import without_broker
from switchyard.jobs.queries import is_message_id, queues_of


@require_http_methods(["GET", "HEAD", "POST"])
def chosen(request: HttpRequest, verb: str) -> HttpResponse:
    """Ask whether to do an act to the jobs that ``job`` names; do it when the answer is posted."""
    act = ACTS.get(verb)
    if act is None:
        raise Http404(f"no act is named {verb}")
    check(request, act.right)
    given = request.POST if request.method == "POST" else request.GET
    ids = [id_ for id_ in dict.fromkeys(given.getlist("job")) if is_message_id(id_)][:LIMIT]
    if request.method == "POST" and ids:
        return _do(request, act, ids)
    try:
        jobs = chosen_jobs(ids)
    except BrokerError:
        return without_broker(request)
    return _ask(request, act, jobs)


def _ask(request: HttpRequest, act: ChosenAct, jobs: Sequence[Job]) -> HttpResponse:
    hit = [job for job in jobs if act.applies(job)]
    context: dict[str, Any] = {
        "title": f"{act.verb} chosen jobs{act.when}",
        "act": act,
        "jobs": hit,
        "left": [job for job in jobs if not act.applies(job)],
        "question": f"{act.verb} {len(hit)} chosen job{'' if len(hit) == 1 else 's'}{act.when}",
        "form_id": str(uuid.uuid4()),
    }
    return RoomResponse(request, "switchyard_jobs/chosen.html", context)


def _do(request: HttpRequest, act: ChosenAct, ids: Sequence[str]) -> HttpResponse:
    """Do the act to one job after the other. An error ends it; the answer counts those before."""
    who, reason = Who.of_request(request), request.POST.get("reason", "").strip()
    who.require(f"switchyard_jobs.{act.right}", partial(queues_of, *ids))  # of several all or none
    form_id, answers, wrong, is_away = request.POST.get("form_id", ""), Counter[str](), "", False
    try:
        for id_ in ids:
            answers[act.apply(id_, who, reason, form_id)] += 1
    except BrokerError:
        wrong, is_away = "The broker does not answer", True
    except DatabaseError:
        wrong = "The database does not answer, so that the audit log cannot be written"
    if answers:
        level = messages.SUCCESS if sum(answers[name] for name in act.good) == len(ids) else messages.WARNING
        messages.add_message(request, level, act.text_of(answers))
    fact = f"{wrong}: {left_text(len(ids) - answers.total(), act)}" if wrong else ""
    if is_away:
        return not_answered(request, fact, back=reverse("switchyard-jobs"))
    if fact:
        messages.error(request, fact)
    return redirect("switchyard-jobs")


def left_text(left: int, act: ChosenAct) -> str:
    """Return what is known of the jobs that an error left: the first of them may have been reached."""
    if left == 1:
        return f"the last chosen job may or may not be {act.done}. Look at it, and choose it again if it is not."
    return (
        f"of the {left} chosen jobs that are left one may be {act.done}, the others are not. Check /readyz, then "
        "choose them again."
    )
