"""Pages of alerts: the list with the silences in force, one alert, and the acts. None changes anything on GET."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Max, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from switchyard.alerts import acts, notice
from switchyard.alerts.channels import ChannelFailed, channels
from switchyard.alerts.models import Alert, Delivery
from switchyard.alerts.notice import SPANS, UNRESOLVED, alert_json, end_of, in_force
from switchyard.audit.services import Who, notes_on, write_note
from switchyard.broker.errors import ActRefused, NotFound
from switchyard.console import links
from switchyard.console.export import MOST, export_of
from switchyard.console.formatting import counted, duration
from switchyard.console.links import BY_KIND
from switchyard.console.room_view import RoomResponse, gone, require
from switchyard.setting_values import InvalidSetting

MOST_CARDS = 20
MOST_ENDED = 10
PER_PAGE, MOST_WORDS = 50, 50
COLUMNS = ("kind", "severity", "queue", "actor", "fingerprint")
SEARCHED = ("title", "fingerprint", "actor", "sample")
RESOLVED_FOR = timedelta(days=1)
TABS = (("Now", ""), ("Acknowledged", "acknowledged"), ("Resolved", "resolved"))


# Kind, name, when it is raised, and of what.
RULES = (
    ("dead_letter", "Dead letter", "any; one message for each cause in 10 min", "every queue"),
    ("broker", "Broker", "an error of its server, or memory nearly full; until it is gone", "the broker"),
    ("finding", "Finding", "bad for 30 s, or one of some warnings for 20 s to 2 min; until it is gone", "the overview"),
)


def context_of(request: HttpRequest) -> dict[str, Any]:
    """Return the template's context: silences, unresolved alerts, and the list that the address selects."""
    query = request.GET.dict()
    state = query.get("state__exact", query.get("state", ""))
    now = timezone.now()
    silences = notice.open_silences()
    unresolved = Alert.objects.filter(state__in=UNRESOLVED)
    silenced = {silence.fingerprint for silence, _ in silences}
    # The open ones first; "open" also sorts after "acknowledged".
    newest = unresolved.prefetch_related("deliveries").order_by("-state", "-last_at", "-id")
    cards = notice.counted_now(newest[:MOST_CARDS])
    resolved = Alert.objects.filter(state=Alert.State.RESOLVED)
    opened = matching(query).filter(state=Alert.State.OPEN)
    return {
        "silences": silences,
        "headline": notice.headline(),
        "unresolved_count": unresolved.count(),
        "cards": [(card, _sent(card), bool(silenced & {"", card.fingerprint})) for card in cards],
        "ended_count": resolved.filter(resolved_at__gte=now - RESOLVED_FOR).count(),
        "ended": list(resolved.order_by("-resolved_at", "-id")[:MOST_ENDED]),
        "channels": channel_rows(),
        "rules": rule_rows(unresolved),
        "tabs": [
            *((text, f"?state__exact={value}" if value else "?", value == state) for text, value in TABS),
            ("All", "?all=", bool(query) and not state),
        ],
        "search": query.get("q", ""),
        # Without a query the unresolved ones are shown.
        "found": Paginator(matching(query), PER_PAGE).get_page(query.get("p", "1")) if query else None,
        "opened": opened.aggregate(count=Count("pk"), newest=Max("pk")),
    }


def matching(query: Mapping[str, str]) -> QuerySet[Alert]:
    """Return the alerts that the list's address selects, newest first."""
    given = {name.removesuffix("__exact"): value.replace("\0", "") for name, value in query.items()}
    rows = Alert.objects.filter(**{name: given[name] for name in ("state", *COLUMNS) if given.get(name)})
    for word in given.get("q", "").split()[:MOST_WORDS]:
        rows = rows.filter(Q(*((f"{column}__icontains", word) for column in SEARCHED), _connector=Q.OR))
    return rows.order_by("-last_at", "-id")


def rule_rows(unresolved: QuerySet[Alert]) -> list[tuple[str, str, str, int]]:
    """Return what raises alerts here, each with its number; alerts of any other kind have a row of their own."""
    counts = dict(unresolved.order_by().values_list("kind").annotate(count=Count("id")))
    found = [(name, when, of, counts.pop(kind, 0)) for kind, name, when, of in RULES]
    return [*found, ("Other", "raised by other code", "", sum(counts.values()))] if counts else found


def channel_rows() -> list[dict[str, Any]]:
    """Return the channels of the settings, each with the time of its last message, an error since, and what waits."""
    try:
        declared = channels()
    except InvalidSetting as error:
        return [{"name": "SWITCHYARD_ALERT_URLS", "at": None, "error": str(error), "waiting": 0}]
    found = []
    for name in declared:
        messages = Delivery.objects.filter(channel=name)
        last = messages.filter(state=Delivery.State.SENT).order_by("-sent_at").first()
        failed = messages.exclude(error="").order_by("-id").first()
        fault = failed.error if failed and (last is None or failed.pk > last.pk) else ""
        waiting = messages.filter(state=Delivery.State.PENDING).count()
        at = last.sent_at if last else None
        found.append({"name": name, "at": at, "error": fault, "waiting": waiting})
    return found


def _sent(alert: Alert) -> list[tuple[str, Delivery]]:
    return sorted({delivery.channel: delivery for delivery in alert.deliveries.all()}.items())


LIST, PAGE = "switchyard-alerts", "switchyard-alert"
VIEW, ACKNOWLEDGE, SILENCE = (f"switchyard_alerts.{verb}_alert" for verb in ("view", "acknowledge", "silence"))
PAST = {"acknowledge": "acknowledged", "resolve": "resolved"}


@require_http_methods(["GET", "HEAD", "POST"])
def alerts(request: HttpRequest) -> HttpResponse:
    """Show unresolved alerts and silences in force; with a filter the alerts that match, to act on some or all."""
    require(request, VIEW)
    if request.method == "POST":
        verb, _, newest = request.POST.get("action", "").partition(" up to ")
        ids = [int(pk) for pk in request.POST.getlist("_selected_action") if pk.isdecimal() and len(pk) < 19]
        _require_act(request, verb)
        chosen = Alert.objects.filter(pk__in=ids)
        if newest.isdecimal():  # all that match, but none that was raised after the page was shown
            chosen = matching(request.GET.dict()).filter(state=Alert.State.OPEN, pk__lte=int(newest[:18]))[:MOST]
        if rows := list(chosen):
            _apply(request, verb, rows)
        else:
            messages.warning(request, "Nothing was done: no alert was chosen.")
        return redirect(request.get_full_path())
    file = export_of(request, "alerts", lambda: map(alert_json, matching(request.GET.dict())[: MOST + 1]))
    if file is not None:
        return file
    context = {"title": "Alerts", **_rights(request), **context_of(request)}
    return RoomResponse(request, "switchyard_alerts/list.html", context)


@require_safe
def alert(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, VIEW)
    row = Alert.objects.filter(pk=pk).first()
    if row is None:
        return gone(request, "alert", pk, LIST)
    context = {
        "title": row.title,
        "row": notice.counted_now([row])[0],
        "unresolved": row.state in UNRESOLVED,
        "silences": list(in_force(row.fingerprint)),
        "deliveries": list(row.deliveries.all()),
        "others": Alert.objects.filter(fingerprint=row.fingerprint).exclude(pk=row.pk).count(),
        "queue_url": links.queue_url(row.queue) if row.queue else "",
        "actor_url": links.actor_url(row.actor) if row.actor else "",
        "steps": BY_KIND.get(row.kind, ""),
        "notes": notes_on("alert", str(row.pk)),
        **_rights(request),
    }
    return RoomResponse(request, "switchyard_alerts/detail.html", context)


@require_POST
def one(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    _require_act(request, verb)
    _apply(request, verb, [get_object_or_404(Alert, pk=pk)])
    return redirect(PAGE, pk)


@require_POST
def note(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, ACKNOWLEDGE)
    get_object_or_404(Alert, pk=pk)
    try:
        write_note("alert", str(pk), request.POST.get("text", ""), who=Who.of_request(request))
    except ActRefused as error:
        messages.warning(request, str(error))
    return redirect(PAGE, pk)


@require_http_methods(["GET", "HEAD", "POST"])
def silence(request: HttpRequest) -> HttpResponse:
    """Ask for how long and why, then silence one fingerprint or every alert."""
    require(request, VIEW, SILENCE)
    given = request.POST if request.method == "POST" else request.GET
    fingerprint, wrong = given.get("fingerprint", "")[:128].replace("\0", ""), ""
    if request.method == "POST":
        try:
            until = end_of(given.get("span", ""))
            acts.silence(fingerprint, until, who=Who.of_request(request), reason=given.get("reason", ""))
        except ActRefused as error:
            wrong = str(error)
        else:
            messages.success(request, f"Silenced until {until:%Y-%m-%d %H:%M} UTC. It ends by itself.")
            return redirect(LIST)
    context = {
        "title": "Silence alerts",
        "fingerprint": fingerprint,
        "named": notice.titles([fingerprint]).get(fingerprint, ""),
        "spans": SPANS,
        "span": given.get("span", "4h"),
        "reason": given.get("reason", ""),
        "wrong": wrong,
    }
    return RoomResponse(request, "switchyard_alerts/silence.html", context, status=400 if wrong else 200)


@require_POST
def unsilence(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, VIEW, SILENCE)
    ended = acts.unsilence(min(pk, 2**63 - 1), who=Who.of_request(request))
    if ended is None:
        messages.warning(request, "That silence is over already.")
    else:
        messages.success(request, "The silence has ended. Alerts from now on are sent.")
    return redirect(LIST)


@require_POST
def test(request: HttpRequest) -> HttpResponse:
    require(request, VIEW, SILENCE)
    name = request.POST.get("channel", "")[:300]
    try:
        took_s = acts.send_test(name, who=Who.of_request(request))
    except (NotFound, InvalidSetting) as error:
        messages.error(request, str(error))
    except ChannelFailed as error:
        messages.error(request, f"{name} did not accept the test: {error.fact}. Check SWITCHYARD_ALERT_URLS.")
    else:
        messages.success(request, f"{name} accepted a test message within {duration(took_s * 1_000)}.")
    return redirect(LIST)


def _require_act(request: HttpRequest, verb: str) -> None:
    if verb not in PAST:
        raise Http404(f"There is no act {verb}.")
    require(request, VIEW, ACKNOWLEDGE)


def _apply(request: HttpRequest, verb: str, alerts: list[Alert]) -> None:
    who, reason = Who.of_request(request), request.POST.get("reason", "").strip()
    done = acts.apply(verb, alerts, who=who, reason=reason)
    already = len(alerts) - done
    before = "acknowledged or resolved" if verb == "acknowledge" else PAST[verb]
    tail = f"; {already} had been {before} before" if already else ""
    messages.success(request, f"{PAST[verb].capitalize()} {counted(done, 'alert')}{tail}.")


def _rights(request: HttpRequest) -> dict[str, bool]:
    return {"may_acknowledge": request.user.has_perm(ACKNOWLEDGE), "may_silence": request.user.has_perm(SILENCE)}
