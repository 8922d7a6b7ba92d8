"""Pages of the frame: search, steps, the strip alone, the list of keys, and the choice of a colour scheme."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from switchyard.console.room_view import RoomResponse, require
from switchyard.frame.navigation import STRIP
from switchyard.frame.search import OPERATIONS, found

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
