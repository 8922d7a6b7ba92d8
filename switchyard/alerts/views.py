"""Admin pages of the acts on alerts. Each checks its right and changes nothing on GET."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from switchyard.alerts import acts
from switchyard.alerts.errors import ChannelFailed, InvalidAlertUrl, InvalidSilence, UnknownChannel
from switchyard.alerts.models import Alert
from switchyard.alerts.queries import title_of
from switchyard.alerts.silences import SPANS, end_of
from switchyard.audit.services import Who
from switchyard.console.formatting import duration

LIST = "admin:switchyard_alerts_alert_changelist"
PAGE = "admin:switchyard_alerts_alert_change"


class AlertViews(ModelAdmin):
    """Action pages of the alert admin."""

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may acknowledge and resolve."""
        return bool(request.user.has_perm("switchyard_alerts.acknowledge_alert"))

    def has_silence_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may silence."""
        return bool(request.user.has_perm("switchyard_alerts.silence_alert"))

    def one_view(self, request: HttpRequest, pk: int, verb: str) -> HttpResponse:
        """Acknowledge or resolve one alert."""
        if verb not in ("acknowledge", "resolve"):
            raise Http404(f"There is no act {verb}.")
        self._check(request, self.has_acknowledge_permission(request), "acknowledge_alert")
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        alert = Alert.objects.filter(pk=pk).first()
        if alert is None:
            raise Http404(f"There is no alert {pk}.")
        self.apply(request, verb, [alert])
        return redirect(PAGE, pk)

    def silence_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for how long and why, then silence one fingerprint or every alert."""
        self._check(request, self.has_silence_permission(request), "silence_alert")
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        given = request.POST if request.method == "POST" else request.GET
        fingerprint, wrong = given.get("fingerprint", "")[:128].replace("\0", ""), ""
        if request.method == "POST":
            try:
                until = end_of(given.get("span", ""))
                acts.silence(fingerprint, until, who=Who.of_request(request), reason=given.get("reason", ""))
            except InvalidSilence as error:
                wrong = str(error)
            else:
                messages.success(request, f"Silenced until {until:%Y-%m-%d %H:%M} UTC. It ends by itself.")
                return redirect(LIST)
        context = {
            **self.admin_site.each_context(request),
            "title": "Silence alerts",
            "fingerprint": fingerprint,
            "named": title_of(fingerprint),
            "spans": SPANS,
            "span": given.get("span", "4h"),
            "reason": given.get("reason", ""),
            "wrong": wrong,
        }
        return TemplateResponse(request, "switchyard_alerts/silence.html", context, status=400 if wrong else 200)

    def unsilence_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """End a silence before its time."""
        self._check(request, self.has_silence_permission(request), "silence_alert")
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        ended = acts.unsilence(min(pk, 2**63 - 1), who=Who.of_request(request))
        if ended is None:
            messages.warning(request, "That silence is over already.")
        else:
            messages.success(request, "The silence has ended. Alerts from now on are sent.")
        return redirect(LIST)

    def test_view(self, request: HttpRequest) -> HttpResponse:
        """Send a test message to one channel."""
        self._check(request, self.has_silence_permission(request), "silence_alert")
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        name = request.POST.get("channel", "")[:300]
        try:
            took_s = acts.send_test(name, who=Who.of_request(request))
        except (UnknownChannel, InvalidAlertUrl) as error:
            messages.error(request, str(error))
        except ChannelFailed as error:
            messages.error(request, f"{name} did not accept the test: {error.fact}. Check SWITCHYARD_ALERT_URLS.")
        else:
            messages.success(request, f"{name} accepted a test message within {duration(took_s * 1_000)}.")
        return redirect(LIST)

    def apply(self, request: HttpRequest, verb: str, alerts: list[Alert]) -> None:
        """Acknowledge or resolve alerts, and say how many."""
        user, who, reason = cast(User, request.user), Who.of_request(request), request.POST.get("reason", "").strip()
        if verb == "acknowledge":
            done = acts.acknowledge(alerts, who=who, by=user, reason=reason)
        else:
            done = acts.resolve(alerts, who=who, reason=reason)
        past = {"acknowledge": "acknowledged", "resolve": "resolved"}[verb]
        already = len(alerts) - done
        tail = f"; {already} had been {past} before" if already else ""
        messages.success(request, f"{past.capitalize()} {done} alert{'' if done == 1 else 's'}{tail}.")

    def _check(self, request: HttpRequest, allowed: bool, right: str) -> None:
        if not (allowed and self.has_view_permission(request)):
            raise PermissionDenied(f"The missing right is switchyard_alerts.{right}.")
