"""Pages of alerts: the list with the silences in force, one alert, and the acts. None changes anything on GET."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from switchyard.alerts import acts, list_page, queries
from switchyard.alerts.errors import ChannelFailed
from switchyard.alerts.models import Alert
from switchyard.alerts.resolution import UNRESOLVED
from switchyard.alerts.silences import SPANS, end_of, in_force
from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, NotFound
from switchyard.console import links
from switchyard.console.formatting import counted, duration
from switchyard.console.room_view import gone, require
from switchyard.console.runbook import BY_KIND
from switchyard.setting_values import InvalidSetting

LIST, PAGE = "switchyard-alerts", "switchyard-alert"
VIEW, ACKNOWLEDGE, SILENCE = (f"switchyard_alerts.{verb}_alert" for verb in ("view", "acknowledge", "silence"))
PAST = {"acknowledge": "acknowledged", "resolve": "resolved"}


@require_http_methods(["GET", "HEAD", "POST"])
def alerts(request: HttpRequest) -> HttpResponse:
    """Show the alerts of now and the silences in force; with a filter the alerts that match, to act on some of them."""
    require(request, VIEW)
    if request.method == "POST":
        verb = request.POST.get("action", "")
        ids = [int(pk) for pk in request.POST.getlist("_selected_action") if pk.isdecimal() and len(pk) < 19]
        _require_act(request, verb)
        if rows := list(Alert.objects.filter(pk__in=ids)):
            _apply(request, verb, rows)
        else:
            messages.warning(request, "Nothing was done: no alert was chosen.")
        return redirect(request.get_full_path())
    context = {"title": "Alerts", **_rights(request), **list_page.context_of(request)}
    return TemplateResponse(request, "switchyard_alerts/list.html", context)


@require_safe
def alert(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one alert."""
    require(request, VIEW)
    row = Alert.objects.filter(pk=pk).first()
    if row is None:
        return gone(request, "alert", pk, LIST)
    context = {
        "title": row.title,
        "row": queries.counted_now([row])[0],
        "unresolved": row.state in UNRESOLVED,
        "silences": list(in_force(row.fingerprint)),
        "deliveries": list(row.deliveries.all()),
        "others": Alert.objects.filter(fingerprint=row.fingerprint).exclude(pk=row.pk).count(),
        "queue_url": links.queue_url(row.queue) if row.queue else "",
        "actor_url": links.actor_url(row.actor) if row.actor else "",
        "steps": BY_KIND.get(row.kind, ""),
        **_rights(request),
    }
    return TemplateResponse(request, "switchyard_alerts/detail.html", context)


@require_POST
def one(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Acknowledge or resolve one alert."""
    _require_act(request, verb)
    row = Alert.objects.filter(pk=pk).first()
    if row is None:
        raise Http404(f"There is no alert {pk}.")
    _apply(request, verb, [row])
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
        "named": queries.titles([fingerprint]).get(fingerprint, ""),
        "spans": SPANS,
        "span": given.get("span", "4h"),
        "reason": given.get("reason", ""),
        "wrong": wrong,
    }
    return TemplateResponse(request, "switchyard_alerts/silence.html", context, status=400 if wrong else 200)


@require_POST
def unsilence(request: HttpRequest, pk: int) -> HttpResponse:
    """End a silence before its time."""
    require(request, VIEW, SILENCE)
    ended = acts.unsilence(min(pk, 2**63 - 1), who=Who.of_request(request))
    if ended is None:
        messages.warning(request, "That silence is over already.")
    else:
        messages.success(request, "The silence has ended. Alerts from now on are sent.")
    return redirect(LIST)


@require_POST
def test(request: HttpRequest) -> HttpResponse:
    """Send a test message to one channel."""
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
    """Acknowledge or resolve alerts, and say how many."""
    who, reason = Who.of_request(request), request.POST.get("reason", "").strip()
    done = (acts.acknowledge if verb == "acknowledge" else acts.resolve)(alerts, who=who, reason=reason)
    already = len(alerts) - done
    tail = f"; {already} had been {PAST[verb]} before" if already else ""
    messages.success(request, f"{PAST[verb].capitalize()} {counted(done, 'alert')}{tail}.")


def _rights(request: HttpRequest) -> dict[str, bool]:
    return {"may_acknowledge": request.user.has_perm(ACKNOWLEDGE), "may_silence": request.user.has_perm(SILENCE)}
