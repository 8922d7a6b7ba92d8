"""Every address of the yard, and the one API that its apps' routers are mounted on."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from switchyard.api.application import PLATFORM_ROUTERS, build_api
from switchyard.api.middleware import PREFIX
from switchyard.console.list_queries import check_foreign_lists

PRODUCT_ROUTERS = (
    ("/reports", "apps.reports.api.router"),
    ("/emails", "apps.mail.api.router"),
    ("/thumbnails", "apps.images.api.router"),
    ("/exports", "apps.exports.api.router"),
    ("/reconciliations", "apps.billing.api.router"),
    ("/payments", "apps.billing.api.payments_router"),
    ("/webhooks", "apps.webhooks.api.router"),
)
PRODUCT_PAGES = [
    ("account/", "apps.mail.urls"),
]


def old_admin_page(request: HttpRequest, label: str, page: str) -> HttpResponseRedirect:
    """Redirect to the current page of an old address, with its query.

    In this project only: a host project has no old pages, and may have an app ``jobs`` of its own in its admin. Keeping
    the old paths themselves would take an admin site of our own, which a host could not combine with its own.
    """
    query = request.META.get("QUERY_STRING", "")
    return HttpResponseRedirect(f"/admin/switchyard_{label}/{page}" + (f"?{query}" if query else ""))


check_foreign_lists(admin.site)
admin.site.site_url = None  # the room, which base_site.html links
api = build_api(*PLATFORM_ROUTERS, *PRODUCT_ROUTERS)

handler400 = "project.error_pages.bad_request"
handler500 = "project.error_pages.server_error"

# Admin pages before the app labels began with "switchyard_", as alerts that were sent and bookmarks link them.
OLD_ADMIN_PAGES = r"^admin/(?P<label>alerts|api|dead_letters|jobs|schedules)/(?P<page>.*)$"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="switchyard-operations"), name="home"),
    path("", include("switchyard.operations.urls")),
    re_path(OLD_ADMIN_PAGES, old_admin_page),
    path("admin/", admin.site.urls),
    path(PREFIX, api.urls),
    *(path(prefix, include(pages)) for prefix, pages in PRODUCT_PAGES),
]
