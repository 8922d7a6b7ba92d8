"""The operations room in the admin: the page, and the part of it that the page polls."""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from apps.platform.operations import overview as page


@require_safe
@never_cache
def overview(request: HttpRequest) -> TemplateResponse:
    """Render the whole page, complete without JavaScript."""
    _check(request)
    context = {
        **admin.site.each_context(request),
        "title": "Overview",
        "room": page.overview(),
        "is_fullwidth": "1",
    }
    return TemplateResponse(request, "switchyard_operations/overview.html", context)


@require_safe
@never_cache
def live(request: HttpRequest) -> TemplateResponse:
    """Render the part that changes."""
    _check(request)
    return TemplateResponse(request, "switchyard_operations/live.html", {"room": page.overview()})


def _check(request: HttpRequest) -> None:
    if not request.user.has_perm("switchyard_operations.view_operations"):
        raise PermissionDenied("The missing right is switchyard_operations.view_operations.")
