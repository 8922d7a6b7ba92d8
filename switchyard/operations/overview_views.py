"""Pages of the overview and of the workers, with the parts that they poll, orders to supervisors, and stacks."""

import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import dramatiq
from django.contrib import messages
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import LONGEST_REASON, Who, newest_entries, notes_on, write_note
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.pool_reports import QUIETED, VERBS, Instruction, PoolReport, Verb
from switchyard.broker.stores.yard_facts import YARD
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import counted
from switchyard.console.room_view import SWITCHED_OFF, RoomResponse, not_answered, require
from switchyard.history.models import JobRow
from switchyard.jobs.queries import running_or_none
from switchyard.operations import overview as page
from switchyard.operations import supervisors
from switchyard.operations.charts import charts_of
from switchyard.operations.findings.pools import shown_stacks
from switchyard.operations.supervisors import WORKERS_AWAY, child_state, refusal, reported_workers
from switchyard.operations.timeouts import answers_within

# Whether the yard is drawn or a plain table is remembered in the browser.
YARD_COOKIE, YARD_COOKIE_S = "switchyard_yard", 31_536_000
MOST_CHANGES, TOGETHER = 6, timedelta(minutes=1)
VIEW, NOTE = "switchyard_operations.view_operations", "switchyard_operations.pause_queue"
# Target of the notes on the overview, and how long the newest one stands below the verdict.
NOTED, PINNED = "overview", timedelta(days=1)


@require_safe
def overview(request: HttpRequest) -> RoomResponse:
    """Render the whole page, complete without JavaScript."""
    require(request, VIEW)
    chosen = request.GET.get("yard", "")
    plain = chosen == "table" if chosen else request.COOKIES.get(YARD_COOKIE) == "table"
    charts = charts_of(YARD, "yard", request.GET.get("span", ""))
    context = {
        "title": "Overview", "charts": charts, "notes": _notes(), "note_url": reverse("switchyard-operations-note"),
        "may_note": request.user.has_perm(NOTE), **_content(request, plain=plain),
    }  # fmt: skip
    response = RoomResponse(request, "switchyard_operations/overview.html", context)
    if chosen:
        shown = "table" if plain else "drawing"
        response.set_cookie(
            YARD_COOKIE, shown, max_age=YARD_COOKIE_S, samesite="Lax", httponly=True, secure=request.is_secure()
        )
    return response


@require_safe
def live(request: HttpRequest) -> RoomResponse:
    """Render the part that changes."""
    require(request, VIEW)
    plain = request.COOKIES.get(YARD_COOKIE) == "table"
    return RoomResponse(request, "switchyard_operations/live.html", _content(request, plain=plain))


@require_POST
def note(request: HttpRequest) -> HttpResponseRedirect:
    require(request, NOTE)
    try:
        write_note("room", NOTED, request.POST.get("text", ""), who=Who.of_request(request))
    except ActRefused as error:
        messages.warning(request, str(error))
    return redirect("switchyard-operations")


def _notes() -> list[AuditEntry]:
    with suppress(DatabaseError), answers_within(page.DATABASE_TIMEOUT_S):
        return notes_on("room", NOTED)
    return []


def _content(request: HttpRequest, *, plain: bool) -> dict[str, Any]:
    room = page.overview()
    steps = _first_steps(room)
    return {
        "room": room,
        "plain": plain,
        "changes": _changes(request, room),
        "first_steps": steps,
        "is_ready": steps is not None and room.verdict.level == "ok",
        "pinned": next((note for note in _notes() if timezone.now() - note.at < PINNED), None),
    }


def _first_steps(room: page.Room) -> dict[str, Any] | None:
    """Return the first steps, shown before the first job; ``None`` once there was one, or where that is unknown."""
    if room.away or any(row.waiting or row.held or row.busy or row.dead for row, _ in room.rows):
        return None
    with suppress(DatabaseError), answers_within(page.DATABASE_TIMEOUT_S):
        if not JobRow.objects.exists():
            urls = switchyard_settings().alert_urls
            return {"only_log": all(url == "log:" or url.endswith("=log:") for url in urls)}
    return None


class Change(NamedTuple):
    """An act of a person, or a host that started pools with a release and settings, within a minute."""

    at: datetime
    act: dict[str, Any] | None = None
    host: str = ""
    release: str = ""
    settings: str = ""
    pools: tuple[str, ...] = ()


def _starts(room: page.Room) -> list[Change]:
    reports = [report for pool in room.pools if pool["state"] for report in pool["state"].reports]
    starts: list[Change] = []
    for report in sorted(reports, key=attrgetter("host", "release", "settings", "started_at")):
        of = report.host, report.release, report.settings, (report.pool,)
        start = Change(datetime_of(report.started_at), None, *of)
        if starts and starts[-1][2:5] == start[2:5] and start.at - starts[-1].at <= TOGETHER:
            start = start._replace(pools=(*starts.pop().pools, report.pool))
        starts.append(start)
    return starts


def _changes(request: HttpRequest, room: page.Room) -> list[Change] | None:
    """Return the newest acts and starts of a day; ``None`` for who may not see acts, and without the database."""
    if not request.user.has_perm("switchyard_audit.view_auditentry"):
        return None
    since = timezone.now() - timedelta(days=1)
    with suppress(DatabaseError), answers_within(page.DATABASE_TIMEOUT_S):
        acts = [Change(shown["entry"].at, shown) for shown in newest_entries(since=since, limit=MOST_CHANGES)]
        starts = [start for start in _starts(room) if start.at >= since]
        return sorted([*acts, *starts], key=attrgetter("at"), reverse=True)[:MOST_CHANGES]
    return None


TITLES = {"quiet": "Quiet {}", "resume": "Let {} take work again", "stop": "Stop {}"}


@require_http_methods(["GET", "HEAD", "POST"])
def instruct(request: HttpRequest, verb: Verb) -> HttpResponseBase:
    """Ask for a reason, and instruct the supervisors that ``member``, ``pool`` or ``host`` names."""
    require(request, "switchyard_operations.instruct_workers")
    if verb not in VERBS:
        raise Http404(f"no instruction is named {verb}")
    given = request.POST if request.method == "POST" else request.GET
    reason, refused, status = given.get("reason", "").strip()[:LONGEST_REASON], "", 200
    reports: tuple[PoolReport, ...] = ()
    chosen: list[tuple[PoolReport, str]] = []
    try:
        reports = reported_workers().reports
        chosen = list(_chosen(reports, verb, given))
        hit = [report for report, why in chosen if not why]
        if request.method == "POST" and hit:
            if reason or verb == "resume":
                done = supervisors.instruct(verb, hit, who=Who.of_request(request), reason=reason)
                are = f"{counted(len(done), 'supervisor')} {'is' if len(done) == 1 else 'are'}"
                text = f"{are} told to {supervisors.TOLD[verb]}. Each obeys within 2 s, and its state says so."
                messages.success(request, text)
                return redirect("switchyard-operations-workers")
            refused, status = "Write a reason. Nothing was done.", 422
    except BrokerError as error:
        refused, status = str(error) if request.method == "POST" else WORKERS_AWAY, 503
    context = {**_context(verb, reports, chosen), "refused": refused, "reason": reason}
    return RoomResponse(request, "switchyard_operations/instruct.html", context, status=status)


def _chosen(reports: Iterable[PoolReport], verb: Verb, given: QueryDict) -> Iterator[tuple[PoolReport, str]]:
    """Yield the named supervisors, each with why it is left out, or ""; a member is named with ``@`` and its start."""
    shown = {name: started for name, _, started in (member.rpartition("@") for member in given.getlist("member"))}
    for report in reports:
        if report.member in shown or report.pool in given.getlist("pool") or report.host == given.get("host"):
            is_other = shown.get(report.member, str(report.started_at)) != str(report.started_at)
            other = "another process of this name has started since; choose it again"
            yield report, other if is_other else refusal(report, verb)


def _context(verb: Verb, reports: Iterable[PoolReport], chosen: Sequence[tuple[PoolReport, str]]) -> dict[str, Any]:
    hit, yard = [report for report, why in chosen if not why], declared_yard()
    taking = {report.pool for report in reports if report not in hit and report.state not in (QUIETED, "draining")}
    known = {pool.name: pool for pool in yard.pools}
    silent = [name for name in dict.fromkeys(report.pool for report in hit) if name not in taking]
    return {
        "title": TITLES[verb].format("chosen workers"),
        "question": TITLES[verb].format(counted(len(hit), "supervisor")),
        "verb": verb,
        "reports": hit,
        "left": [(report, why) for report, why in chosen if why],
        "busy": sum(report.busy for report in hit),
        "silent": silent,
        "lanes": [lane for name in silent if name in known for lane in yard.served_by(known[name])],
    }


# A supervisor polls for requests every 2 s, and its children have 0.5 s to answer.
PATIENCE_S = 10.0
REQUEST = re.compile(r"\d{1,12}-[\w-]{22}")

logger = logging.getLogger("switchyard.operations")


@require_safe
def workers(request: HttpRequest) -> RoomResponse:
    """List every supervisor with its children; complete without JavaScript."""
    require(request, "switchyard_operations.view_operations")
    return RoomResponse(request, "switchyard_operations/workers.html", {"title": "Workers"} | _workers())


@require_safe
def workers_live(request: HttpRequest) -> RoomResponse:
    """Render the part that changes."""
    require(request, "switchyard_operations.view_operations")
    return RoomResponse(request, "switchyard_operations/workers_live.html", _workers())


def _workers() -> dict[str, Any]:
    """Return the supervisors in the order of the topology, what they run, and the pools that nobody works."""
    try:
        workers = reported_workers()
    except BrokerError:
        return {"supervisors": None, "running": None, "away": WORKERS_AWAY, "off": SWITCHED_OFF}
    running = running_or_none()
    shown = [_supervisor(report, running, workers.instructions.get(report.member)) for report in workers.reports]
    return {
        "workers": workers,
        "supervisors": shown,
        "pools": [_pool(name, list(of)) for name, of in groupby(shown, key=lambda each: each["report"].pool)],
        "running": running,
        "hosts": sorted({report.host for report in workers.reports}),
        "off": "",
    }


def _supervisor(report: PoolReport, running: Sequence[Job] | None, quieted: Instruction | None) -> dict[str, Any]:
    """Return a supervisor as the page shows it; ``by_actor``: number of jobs and the longest of each, most first."""
    jobs: dict[str, list[Job]] = {}
    for job in running_of(report.member, running) or ():
        jobs.setdefault(job.actor, []).append(job)
    by_actor = [(actor, len(of), of[0]) for actor, of in jobs.items()]
    return {
        "report": report,
        "children": [(child, child_state(report, child)) for child in report.children],
        "by_actor": sorted(by_actor, key=lambda found: (-found[1], found[0])),
        "started": datetime_of(report.started_at),
        "beat": datetime_of(report.beat_at),
        "memory_bytes": sum(int(child.get("rss_bytes", 0)) for child in report.children),
        "restarts": sorted(report.restarts.items()),
        "quieted": quieted,
    }


def _pool(name: str, shown: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a pool with the acts on those that do not do so already, with the number of these: ``all 2``, or ``1``."""
    hit = ((verb, sum(not refusal(each["report"], verb) for each in shown)) for verb in VERBS)
    acts = [(verb, f"{'all ' if 1 < count == len(shown) else ''}{count:,}") for verb, count in hit if count]
    return {"name": name, "supervisors": shown, "acts": acts, "is_several": len(shown) > 1}


@require_POST
def ask_for_stacks(request: HttpRequest, member: str) -> HttpResponse:
    """Request the stacks of a supervisor's children, and redirect to the page that shows them."""
    require(request, "switchyard_operations.dump_stacks")
    pools, name = facilities(dramatiq.get_broker()).pools, f"{now_ms() // 1_000}-{secrets.token_urlsafe(16)}"
    try:
        if member not in {supervisor.member for supervisor in pools.read_all()}:
            raise Http404("No such supervisor reports; it has ended.")
        pools.ask_for_stacks(member, name)
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-operations-workers"))
    logger.info("stacks of %s requested by user %s", member, request.user.pk)
    return redirect(reverse("switchyard-operations-stacks", args=[member, name]))


@require_safe
def stacks(request: HttpRequest, member: str, name: str) -> RoomResponse:
    """Show the requested stacks; the page reloads every second until they arrive."""
    require(request, "switchyard_operations.dump_stacks")
    if not REQUEST.fullmatch(name):
        raise Http404("No such request.")
    try:
        answered = facilities(dramatiq.get_broker()).pools.read_stacks(name)
    except BrokerError:
        answered = None
    may_see_jobs = request.user.has_perm("switchyard_jobs.view_job")
    context = {
        "title": f"Stacks of {member}",
        "member": member,
        "pool": member.partition(":")[0],
        "children": None if answered is None else shown_stacks(answered),
        "running": running_of(member, running_or_none()) if may_see_jobs else None,
        "late": now_ms() / 1_000 - int(name.partition("-")[0]) > PATIENCE_S,
    }
    return RoomResponse(request, "switchyard_operations/stacks.html", context)


def running_of(member: str, running: Sequence[Job] | None) -> list[Job] | None:
    """Return what a supervisor's children run; ``None`` where that is not known."""
    return None if running is None else [job for job in running if job.holder.member == member]
