"""Pages of actors: the list, one actor, the form that sends it, and the pages that ask before a pause and its end."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from dramatiq.actor import Actor
from dramatiq.middleware import MiddlewareError

from switchyard.actors import queries
from switchyard.actors.queries import ActorFacts, ActorHistory, AttemptFigures
from switchyard.audit.services import Who
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import ActRefused, BrokerError, NotFound, SwitchyardError
from switchyard.broker.shapes import ActorPause
from switchyard.broker.stores.yard_facts import actor_subject, owner_subject
from switchyard.broker.topology import LONGEST_DELAY_MS
from switchyard.console.export import export_of
from switchyard.console.formatting import counted, duration, parse_until, whole_duration
from switchyard.console.links import job_url, jobs_url, schedule_url
from switchyard.console.lists import ASCENDING, SortColumn, by_figure, heads_of
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, require
from switchyard.history import queries as history
from switchyard.history.filters import Filter
from switchyard.jobs import pauses
from switchyard.jobs.calls import CallForm, parameters_of, signature_text
from switchyard.jobs.queries import is_job_id, own_queues
from switchyard.jobs.services import send_for
from switchyard.middleware.envelope import LONGEST_TAG, MOST_TAGS
from switchyard.operations.charts import charts_of


class SendForm(CallForm):
    """Form that sends an actor."""

    delay_s = forms.FloatField(
        label="Delay in seconds", required=False, min_value=0, max_value=LONGEST_DELAY_MS / 1_000,
        widget=forms.NumberInput(attrs={"class": "sy-input sy-short", "step": "any", "min": "0"}),
    )  # fmt: skip
    tags = forms.CharField(
        required=False, max_length=MOST_TAGS * (LONGEST_TAG + 1),
        widget=forms.TextInput(attrs={"class": "sy-input", "autocomplete": "off"}),
        help_text=f"Words with spaces between them, at most {MOST_TAGS}.",
    )  # fmt: skip
    job_id = forms.CharField(required=False, max_length=36, widget=forms.HiddenInput)

    @property
    def option_fields(self) -> list[forms.BoundField]:
        return [self["delay_s"], self["tags"]]

    def clean_tags(self) -> list[str]:
        tags: list[str] = list(dict.fromkeys(self.cleaned_data["tags"].split()))
        if len(tags) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in tags):
            raise forms.ValidationError(f"write at most {MOST_TAGS} tags of at most {LONGEST_TAG} characters")
        return tags


VIEW, RUN = "switchyard_operations.view_operations", "switchyard_jobs.run_job"
JOBS = "switchyard_jobs.view_job"
LETTERS = "switchyard_dead_letters.view_deadletter"
PAUSE = "switchyard_operations.pause_queue"
RECENT, MOST_COSTS = 10, 100


@require_safe
def actors(request: HttpRequest) -> HttpResponse:
    require(request, VIEW)
    if (file := export_of(request, "actors", lambda: map(asdict, queries.all_actors()))) is not None:
        return file
    ran = queries.last_day()
    rows = [(facts, ran.get(facts.name)) for facts in queries.all_actors()]
    sort = request.GET.get("sort", "")
    context = {"title": "Actors", "actors": in_order(rows, sort), "heads": heads_of(COLUMNS, sort)}
    return RoomResponse(request, "switchyard_actors/list.html", context)


@require_safe
def costs(request: HttpRequest) -> HttpResponse:
    """List how long jobs ran for each owner, or for each value of an argument that jobs are found by."""
    require(request, VIEW)
    require(request, JOBS)
    names, by, wrong = queries.searched_arguments(), request.GET.get("by", ""), ""
    if by:
        require(request, ARGUMENTS)
    if by and by not in names:
        raise NotFound(f"by: no actor of this code is searched by {by:.100}")
    try:
        ran = queries.by_argument(by) if by else queries.last_day(owner_subject)
    except DatabaseError:
        ran, wrong = {}, "The database cannot be read; check /readyz, then try again."
    found = sorted(ran.items(), key=lambda pair: -pair[1].sums["total_ms"])
    listed = ({by or "owner": name, **one.as_json()} for name, one in found)
    if (file := export_of(request, "costs", lambda: listed)) is not None:
        return file
    shown = found[:MOST_COSTS]
    rows = [(name, one, jobs_url(**({"argument": f"{by}={name}"} if by else {"owner": name}))) for name, one in shown]
    total = sum(one.sums["total_ms"] for _, one in found)
    context = {"title": "Costs", "rows": rows, "total": total, "by": by, "names": names, "wrong": wrong}
    return RoomResponse(request, "switchyard_actors/costs.html", context)


@require_safe
def actor(request: HttpRequest, name: str) -> HttpResponse:
    require(request, VIEW)
    found = queries.find_actor(name)
    may_run = holds(request.user, RUN, own_queues(found)[0])
    return _page(request, found, SendForm(found, initial={"job_id": str(uuid.uuid4())}) if may_run else None)


@require_POST
@sensitive_post_parameters()
def send(request: HttpRequest, name: str) -> HttpResponse:
    """Send the actor with the form's arguments and link the job; show the form again with its errors, as 422."""
    found = queries.find_actor(name)
    require(request, VIEW)
    require(request, RUN, queue=own_queues(found)[0])
    form = SendForm(found, request.POST)
    if not form.is_valid():
        first = next((each for name, each in form.fields.items() if name in form.errors), None)
        if first is not None:
            first.widget.attrs["autofocus"] = True  # the browser scrolls there
        return _page(request, found, form, status=422)
    delay_s, data = form.cleaned_data["delay_s"], form.cleaned_data
    try:
        job_id = send_for(
            found, form.call, who=Who.of_request(request), delay_ms=round(delay_s * 1_000) if delay_s else None,
            tags=data["tags"], job_id=data["job_id"] if is_job_id(data["job_id"]) else None,
        )  # fmt: skip
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


def _done(request: HttpRequest, verb: str, wanted: ActorPause, reason: str) -> str:
    """Do an act of a submitted form; return its outcome as a sentence."""
    name, who, until = wanted.actor, Who.of_request(request), request.POST.get("until", "").strip()
    if verb == "resume":
        return f"{name} {'is resumed' if pauses.resume(wanted, who=who, reason=reason) else 'was not paused'}."
    if verb == "pause":
        if not reason:
            raise ActRefused("pause", "write a reason; nothing was paused")
        if pauses.pause(wanted, who=who, reason=reason, until=parse_until(until) if until else None):
            return f"{name} is paused: no job of it starts, running ones continue."
        return f"{name} was paused already; nothing is changed."
    if not reason:
        raise ActRefused("circuit", "write a reason; nothing was opened")
    if pauses.open_circuit(wanted, who=who, reason=reason, until=parse_until(until)):
        return "The circuit is open."
    return "The circuit was open already, and is now until this time or later."


def _asking(verb: str) -> Callable[[HttpRequest, str], HttpResponse]:
    """Return a page that asks for a reason, an end and the value of an argument, and does an act to an actor."""

    @require_http_methods(["GET", "HEAD", "POST"])
    def ask(request: HttpRequest, name: str) -> HttpResponse:
        """Do the act of a submitted form and show its outcome; else show the form, with the reason of a refusal."""
        found, refused, status = queries.find_actor(name), "", 200
        queue = own_queues(found)[0]
        require(request, PAUSE, queue=queue)
        names = ("argument", "until", "reason")
        given = {key: request.POST.get(key, request.GET.get(key, "")).strip() for key in names}
        if given["argument"]:  # its value may be one that the user may not see
            require(request, ARGUMENTS, queue=queue)
        if request.method == "POST":
            try:
                wanted = pauses.chosen(found, given["argument"])
                messages.success(request, _done(request, verb, wanted, given["reason"][:500]))
                return redirect(reverse("switchyard-actor", args=[name]))
            except (ActRefused, BrokerError) as error:
                refused, status = str(error), 503 if isinstance(error, BrokerError) else 422
        arguments = [each.name for each in parameters_of(found) if not each.redacted]
        title = f"{verb.capitalize()} {name}"
        context = {**given, "title": title, "verb": verb, "name": name, "names": arguments, "refused": refused}
        return RoomResponse(request, "switchyard_actors/pause.html", context, status=status)

    return ask


pause, resume, open_circuit = _asking("pause"), _asking("resume"), _asking("open the circuit of")


def _page(request: HttpRequest, found: Actor[..., Any], form: SendForm | None, *, status: int = 200) -> HttpResponse:
    name, queue = found.actor_name, own_queues(found)[0]
    may = partial(holds, request.user, queue=queue)
    try:
        ended = queries.of_actor(name)
        rows = history.search(Filter(actor=name), limit=RECENT).rows if may(JOBS) else []
        recent = [(row, datetime_of(row.finished_at)) for row in rows]
        groups = queries.failures_of(name, ended.failures if may(JOBS) else None, letters=may(LETTERS))
    except DatabaseError:
        ended, recent, groups = None, None, None
    facts = queries.facts_of(found)
    try:
        paused, yields = pauses.paused_actors(name), queries.yields_of(name)
        lately, usual, hosts = queries.lately(name), queries.usual_text(name), queries.hosts_called(found)
    except BrokerError:
        paused, yields, lately, usual, hosts = [], 0, None, "", []
    context = {
        "title": name,
        "actor": facts,
        "schedule": schedule_url(name) if "periodic" in found.options else "",
        "soft_limit": whole_duration(facts.soft_limit_ms) if facts.soft_limit_ms else "",
        "signature": signature_text(found),
        "lately": lately,
        "charts": charts_of(actor_subject(name), "actor", request.GET.get("span", ""), target=name),
        "usual": usual,
        "hosts": hosts,
        "judged": held_back(of(lately, ended), paused),
        "groups": groups,
        "recent": recent,
        "jobs": jobs_url(actor=name),
        "may_see": {"jobs": may(JOBS), "letters": may(LETTERS), "arguments": may(ARGUMENTS)},
        "form": form,
        "pauses": [each for each in paused if not each.argument or may(ARGUMENTS)],
        "may_pause": may(PAUSE),
        "acts_on": queue,
        "yields": yields,
    }
    return RoomResponse(request, "switchyard_actors/actor.html", context, status=status)


Row = tuple[ActorFacts, AttemptFigures | None]

# Outcomes of attempts that did not do what they were to do.
FAILED: Final = frozenset({"dead", "retried", "expired"})
# Name in the address -> head of its column, and the figure.
FIGURES: Final[dict[str, tuple[str, Callable[[AttemptFigures], float | None]]]] = {
    "ended": ("Ended", lambda ran: ran.attempts),
    "failed": ("How, by failures", lambda ran: sum(count for name, count in ran.outcomes if name in FAILED)),
    "run": ("Ran, 95 %", lambda ran: ran.run_ms[1] if ran.run_ms else None),
    "total": ("In all", lambda ran: ran.sums["total_ms"]),
    "processor": ("Processor", lambda ran: ran.sums["processor_ms"]),
    "sql": ("In SQL", lambda ran: ran.sums["sql_ms"]),
    "grown": ("Grew by", lambda ran: ran.sums["grown_bytes"]),
}
COLUMNS: Final = (
    SortColumn("name", "Actor", ("", "-name"), own=ASCENDING),
    *(SortColumn(name, head, (f"-{name}", name)) for name, (head, _) in FIGURES.items()),
)


def in_order(rows: Sequence[Row], sort: str) -> list[Row]:
    """Return actors in an order, those without a figure last; of the same figure, and of no such order, by name."""
    by_name = sorted(rows, key=lambda row: row[0].name, reverse=sort == "-name")
    if sort.lstrip("-") not in FIGURES:
        return by_name
    _, figure = FIGURES[sort.lstrip("-")]
    return by_figure(by_name, lambda row: None if row[1] is None else figure(row[1]), sort)


# Of the jobs that ended: fewer dead ones are told, and are no fault of the actor as a whole.
MANY_DEAD = 0.05


@dataclass(frozen=True, slots=True)
class Judgement:
    """A word with its level, and a sentence."""

    word: str
    level: str
    sentence: str


def of(lately: Sequence[AttemptFigures] | None, ended: ActorHistory | None) -> Judgement:
    """Return the judgement of an actor by its last hour; ``None`` stands for a broker, or a database, that is away."""
    if lately is None:
        return Judgement("Unknown", "", "How its jobs ended is unknown: the broker does not answer.")
    _, hour, day = lately
    if not day.jobs:
        return Judgement("Quiet", "", "None of its jobs ended in the last day.")
    if not hour.jobs:
        return Judgement(
            "Quiet", "", f"None of its jobs ended in the last hour; {counted(day.jobs, 'job')} in the last day."
        )
    dead, ended = dict(hour.outcomes).get("dead", 0), ended or ActorHistory()
    if not dead:
        median = f", {duration(hour.run_ms[0])} each at the median" if hour.run_ms else ""
        return Judgement("Healthy", "ok", f"{counted(hour.jobs, 'job')} ended in the last hour, none gave up{median}.")
    share = f"{counted(dead, 'job')} of {hour.jobs:,} that ended in the last hour gave up"
    causes = ended.failures
    cause = f", all with {causes[0].exception}" if len(causes) == 1 else f", of {len(causes)} causes" if causes else ""
    since = f"; since release {ended.dead_since}, before it none did" if ended.dead_since else ""
    many = dead > hour.jobs * MANY_DEAD
    return Judgement("Failing" if many else "Some fail", "bad" if many else "warn", f"{share}{cause}{since}.")


def held_back(judged: Judgement, paused: Sequence[ActorPause]) -> Judgement:
    """Return the judgement of an actor of which nothing starts: it is not healthy for what ended before."""
    whole = next((each for each in paused if not each.argument), None)
    if whole is None or judged.level != "ok":
        return judged
    return replace(judged, word="Circuit open" if whole.is_open else "Paused", level="warn")
