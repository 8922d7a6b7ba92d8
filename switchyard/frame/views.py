"""Menu and verdict strip of every page of the room; and the pages of the frame: search, steps, keys, colour scheme.

A search is by anything: the id of a job, or the name of an actor, queue, owner, argument, letter, alert or worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

import dramatiq
from django.apps import apps
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.db import DatabaseError
from django.db.models import Count, Max, Q
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from switchyard.alerts import notice
from switchyard.alerts.models import Alert
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.console import links
from switchyard.console.links import admin_site, admin_url
from switchyard.console.queue_rights import holds
from switchyard.console.room_view import RoomResponse, require
from switchyard.dead_letters import queries as dead_letters
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.queries import groups, listing
from switchyard.history.filters import Filter, search_text, searched_names
from switchyard.history.models import SearchValue
from switchyard.jobs.listing.pages import find_jobs
from switchyard.jobs.presentation import passport_of
from switchyard.jobs.queries import is_job_id, is_message_id, written_id
from switchyard.loggers import get_logger
from switchyard.schedules.rows import all_schedules

if TYPE_CHECKING:
    from switchyard.operations.overview import Room

# Of a page: one that follows another costs nothing, and the strip of an open one is read anew soon after.
PAGE_S = 5.0
# Of the strip alone, which open pages fetch.
FRESH_S = 2.0
# An older one is not shown while it is read anew.
OLD_S = 15.0


class VerdictStrip:
    """The last overview of this process. A page that finds it being read elsewhere shows the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        # With the time at which the read ended.
        self._kept: tuple[Room, float] | None = None

    def verdict(self, fresh_s: float = FRESH_S) -> Room:
        """Return the overview with its verdict, read anew when it is older than ``fresh_s``."""
        if (kept := self._fresh(fresh_s)) is not None:
            return kept
        before = self._fresh(OLD_S)
        if not self._lock.acquire(blocking=before is None) and before is not None:
            return before
        try:
            return self._fresh(fresh_s) or self._read()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Have the next page read the yard."""
        self._kept = None

    def _fresh(self, fresh_s: float) -> Room | None:
        kept = self._kept
        return kept[0] if kept and self._clock() - kept[1] < fresh_s else None

    def _read(self) -> Room:
        # Imported here: Django's check of templates imports the tags, which import this module.
        from switchyard.operations import overview

        room = overview.overview()
        self._kept = room, self._clock()
        return room


STRIP = VerdictStrip()


# Apps whose pages the room has better ones for.
LEFT_OUT_APPS = {f"switchyard_{name}" for name in ("dead_letters", "alerts", "jobs", "schedules", "operations")}
LEFT_OUT_APPS |= {"django_dramatiq"}


class MenuEntry(NamedTuple):
    """A line of the menu, with the icon and the key of its page; ``badge``: number beside the name, "" for none."""

    title: str
    address: str
    icon: str
    key: str = ""
    badge: str = ""
    active: bool = False


class RoomPage(NamedTuple):
    """A page of the room as the menu declares it.

    An app of the project adds pages to the menu by ``room_pages`` of its ``AppConfig``, a tuple of tuples like this.
    ``name`` is that of its URL, ``icon`` that of a shape in ``icon.html``; ``key`` opens it after ``g``, "" for none.
    """

    title: str
    name: str
    icon: str
    key: str
    right: str


ROOM = (
    RoomPage("Overview", "switchyard-operations", "overview", "o", "switchyard_operations.view_operations"),
    RoomPage("Queues", "switchyard-queues", "queues", "q", "switchyard_operations.view_operations"),
    RoomPage("Limits", "switchyard-limits", "limits", "", "switchyard_operations.view_operations"),
    RoomPage("Actors", "switchyard-actors", "actors", "a", "switchyard_operations.view_operations"),
    RoomPage("Workers", "switchyard-operations-workers", "workers", "w", "switchyard_operations.view_operations"),
    RoomPage("Jobs", "switchyard-jobs", "jobs", "j", "switchyard_jobs.view_job"),
    RoomPage("Batches", "switchyard-batches", "batches", "", "switchyard_jobs.view_job"),
    RoomPage("Schedules", "switchyard-schedules", "schedules", "s", "switchyard_schedules.view_schedulestate"),
    RoomPage("Dead letters", "switchyard-letters", "letters", "d", "switchyard_dead_letters.view_deadletter"),
    RoomPage("Alerts", "switchyard-alerts", "alerts", "l", "switchyard_alerts.view_alert"),
    RoomPage("Bulk acts", "switchyard-bulk-acts", "bulk", "", "switchyard_bulk.view_bulkact"),
    RoomPage("Audit log", "switchyard-audit", "audit", "", "switchyard_audit.view_auditentry"),
)


def menu(request: HttpRequest) -> list[tuple[str, list[MenuEntry]]]:
    """Return the groups of the menu by title, with the pages that the user may see; those without any are left out."""
    found = (("Operations room", _room_entries(request)), ("Administration", _admin_entries(request)))
    return [(title, entries) for title, of in found if (entries := list(of))]


def _room_entries(request: HttpRequest) -> Iterable[MenuEntry]:
    added = (RoomPage(*page) for config in apps.get_app_configs() for page in getattr(config, "room_pages", ()))
    for page in (*ROOM, *added):
        if not request.user.has_perm(page.right):
            continue
        try:
            address = reverse(page.name)
        except NoReverseMatch:  # a project that includes a part of the room
            continue
        active = request.path == address if page.icon == "overview" else request.path.startswith(address)
        yield MenuEntry(page.title, address, page.icon, page.key, _badge(page), active)


def _badge(page: RoomPage) -> str:
    count = {"letters": dead_letters.open_count, "alerts": notice.open_count}.get(page.icon, int)
    try:
        return f"{found:,}" if (found := count()) else ""
    except DatabaseError:  # the page says so itself, where it needs the database
        return ""


def _admin_entries(request: HttpRequest) -> Iterable[MenuEntry]:
    try:
        listed = admin_site().get_app_list(request) if admin_url("index") else ()
    except NoReverseMatch:  # a check names the site that the project mounts in its place
        return
    for app in listed:
        # A site of the project's own may list more than apps, without a page for all of it.
        if app["app_label"] not in LEFT_OUT_APPS and app.get("app_url"):
            yield MenuEntry(str(app["name"]), app["app_url"], "settings")


@dataclass(frozen=True, slots=True)
class Hit:
    """A result. The text ``is_exact``: its whole name; or ``is_id``: no other has it, and the search leads there."""

    name: str
    address: str
    note: str = ""
    is_exact: bool = False
    is_id: bool = False


MOST_ROWS, MOST_GROUPS = 10, 200
DIGITS = 15


def jobs(asked: str) -> Iterator[Hit]:
    """Find a job by its id."""
    job_id = written_id(asked)
    if is_message_id(job_id) and passport_of(job_id) is not None:
        yield Hit(job_id, links.job_url(job_id), is_exact=True, is_id=True)


def owners(asked: str) -> Iterator[Hit]:
    page = find_jobs(Filter(owner=asked), limit=1)
    if page.jobs:
        yield Hit(asked, links.jobs_url(owner=asked), "jobs of this owner", is_exact=True)


def arguments(asked: str) -> Iterator[Hit]:
    """Find jobs by an argument: ``name=value``, or the value of any argument that an actor lists in ``search``."""
    name, equals, value = (part.strip() for part in asked.partition("="))
    if equals and name:
        page = find_jobs(Filter(argument=(name, value)), limit=1)
        if page.jobs:
            yield _with_argument(f"{name}={value}", "jobs with this argument")
        return
    names = {name for actor in dramatiq.get_broker().actors for name in searched_names(actor)}
    rows = SearchValue.objects.filter(name__in=names, value=search_text(asked) or "")
    for row in rows.values("name").annotate(count=Count("id")).order_by("name")[:MOST_ROWS]:
        yield _with_argument(f"{row['name']}={asked}", f"{row['count']:,} jobs that have ended")


def _with_argument(argument: str, note: str) -> Hit:
    return Hit(argument, links.jobs_url(argument=argument), note, is_exact=True)


def letters(asked: str) -> Iterator[Hit]:
    """Find dead letters by the id of their message, and groups by fingerprint, actor, queue or their newest error.

    The errors of 100,000 letters take a second to read; those of a group are much the same.
    """
    if is_job_id(written_id(asked)):
        for row in DeadLetter.objects.filter(message_id=written_id(asked)).order_by("-died_at")[:MOST_ROWS]:
            name, state = f"{row.exception} of {row.actor}", row.get_state_display().lower()
            yield Hit(name, links.letter_url(row.pk), state)
        return
    text = Q(exception__icontains=asked) | Q(error__icontains=asked) | Q(actor=asked) | Q(queue=asked)
    newest = listing().order_by().values("fingerprint").annotate(newest=Max("id")).values("newest")
    rows = DeadLetter.objects.filter(text | Q(fingerprint=asked), pk__in=newest).order_by("-died_at")
    named = list(rows.values_list("fingerprint", flat=True)[:MOST_GROUPS])
    for group in groups(of=listing().filter(fingerprint__in=named), limit=MOST_ROWS):
        name, address = f"{group.exception} of {group.actor}", links.letters_url(fingerprint=group.fingerprint)
        yield Hit(name, address, f"{group.letters:,} open", is_id=group.fingerprint == asked)


def alerts(asked: str) -> Iterator[Hit]:
    """Find alerts by number, title or fingerprint."""
    wanted = Q(title__icontains=asked) | Q(fingerprint=asked)
    number = asked.upper().removeprefix("A-")
    if number.isdecimal() and len(number) <= DIGITS:
        wanted |= Q(pk=int(number))
    for alert in Alert.objects.filter(wanted)[:MOST_ROWS]:
        note = f"A-{alert.pk}, {alert.get_state_display().lower()}"
        yield Hit(alert.title, links.alert_url(alert.pk), note)


MOST_WORKERS = 20


def queues() -> Iterator[Hit]:
    for queue in declared_yard().queues:
        pools = ", ".join(pool.name for pool in declared_yard().pools_of(queue.name))
        yield Hit(queue.name, links.queue_url(queue.name), f"pools: {pools}" if pools else "")


def actors() -> Iterator[Hit]:
    for name, actor in sorted(dramatiq.get_broker().actors.items()):
        yield Hit(name, links.actor_url(name), f"queue {actor.queue_name}")


def schedules() -> Iterator[Hit]:
    """Yield the schedules of this code, and those of rows."""
    for schedule in all_schedules():
        yield Hit(schedule.name, links.schedule_url(schedule.name), schedule.trigger.text)


def _by_name(declared: Callable[[], Iterator[Hit]]) -> Callable[[str], Iterator[Hit]]:
    """Return the search among declared things by a part of their name."""

    def search(asked: str) -> Iterator[Hit]:
        return (replace(hit, is_exact=asked == hit.name) for hit in declared() if asked.lower() in hit.name.lower())

    return search


def workers(asked: str) -> Iterator[Hit]:
    """Find supervisors by pool, host, process or release."""
    for report in facilities(dramatiq.get_broker()).pools.read_all():
        pids = {str(report.pid), *(str(child.get("pid")) for child in report.children)}
        named = asked.lower() in f"{report.pool} {report.host}".lower()
        if named or asked in pids or asked in (report.member, report.release):
            note = f"{report.state}, {report.busy} of {report.slots} busy"
            title = f"{report.pool} on {report.host}, pid {report.pid}"
            yield Hit(title, links.worker_url(report.member), note, is_id=asked == report.member)


User = AbstractBaseUser | AnonymousUser | PermissionsMixin
log = get_logger(__name__)


OPERATIONS = "switchyard_operations.view_operations"
# Titles, the rights to see such things, and the searches among them.
KINDS: tuple[tuple[str, str, Callable[[str], Iterator[Hit]]], ...] = (
    ("Jobs", "switchyard_jobs.view_job", jobs),
    ("Queues", OPERATIONS, _by_name(queues)),
    ("Actors", OPERATIONS, _by_name(actors)),
    ("Schedules", "switchyard_schedules.view_schedulestate", _by_name(schedules)),
    ("Workers", OPERATIONS, lambda asked: islice(workers(asked), MOST_WORKERS)),
    ("Dead letters", "switchyard_dead_letters.view_deadletter", letters),
    ("Alerts", "switchyard_alerts.view_alert", alerts),
    ("Owners", "switchyard_jobs.view_job", owners),
    ("Arguments", "switchyard_jobs.view_arguments", arguments),
)


def found(user: User, asked: str) -> tuple[list[tuple[str, list[Hit]]], list[str], str]:
    """Return what a text names, of the kinds that the user may see.

    Returns:
        The hits by title of their kind; the kinds that could not be searched, because the broker or the database did
        not answer; and the address of the only thing that it names exactly, "" for none or several.
    """
    groups, unread = [], []
    for title, right, search in KINDS:
        if not holds(user, right):
            continue
        try:
            hits = [hit for hit in search(asked) if hit.address]
        except (BrokerError, DatabaseError) as error:
            log.warning("a search was cut short", kind=title, error=type(error).__name__)
            unread.append(title.lower())
            continue
        if hits:
            groups.append((title, hits))
    everything = [hit for _, hits in groups for hit in hits]
    exact = [hit.address for hit in everything if hit.is_id]
    if not exact and len(everything) == 1 and everything[0].is_exact:
        exact = [everything[0].address]
    return groups, unread, exact[0] if exact else ""


THEME_COOKIE: Final = "switchyard_theme"
THEMES: Final = ("light", "dark")
KEYS_COOKIE: Final = "switchyard_keys"


LONGEST_QUERY = 200
YEAR_S = 365 * 24 * 3_600


@require_safe
def find(request: HttpRequest) -> HttpResponse:
    """List what a text names, by kind; redirect to the only thing that it names exactly."""
    asked = request.GET.get("q", "").replace("\0", "").strip()[:LONGEST_QUERY]
    groups, unread, exact = found(request.user, asked) if asked else ([], [], "")
    if exact:
        return redirect(exact)
    context = {"title": "Find", "asked": asked, "groups": groups, "unread": unread}
    return RoomResponse(request, "switchyard_frame/find.html", context)


@require_safe
def steps(request: HttpRequest) -> HttpResponse:
    """Say where the steps from an alert to its cause are."""
    return RoomResponse(request, "switchyard_frame/steps.html", {"title": "Steps"})


@require_safe
def strip(request: HttpRequest) -> HttpResponse:
    """Render the strip alone, for pages that are open."""
    require(request, OPERATIONS)
    return RoomResponse(request, "switchyard_frame/strip.html", {"strip": STRIP.verdict()})


@require_safe
def keys(request: HttpRequest) -> HttpResponse:
    """List the keys; the same list opens over every page."""
    return RoomResponse(request, "switchyard_frame/keys.html", {"title": "Keys"})


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember the colour scheme, and whether keys are on, in cookies; redirect to the page that asked."""
    wanted = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    answer = HttpResponseRedirect(wanted if safe else reverse("switchyard-operations"))
    if (chosen := request.POST.get("theme")) is not None:
        if chosen not in ("", *THEMES):
            return HttpResponseBadRequest("theme: light, dark, or nothing for the browser's", content_type="text/plain")
        _remember(request, answer, THEME_COOKIE, chosen)
    if "keys" in request.POST:
        _remember(request, answer, KEYS_COOKIE, "off" if request.POST["keys"] == "off" else "")
    return answer


def _remember(request: HttpRequest, answer: HttpResponse, name: str, value: str) -> None:
    if value:
        answer.set_cookie(name, value, max_age=YEAR_S, samesite="Lax", httponly=True, secure=request.is_secure())
    else:
        answer.delete_cookie(name, samesite="Lax")
