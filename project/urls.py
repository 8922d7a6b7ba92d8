"""Every address of the yard, and the one API that its apps' routers are mounted on."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from switchyard.api.application import PLATFORM_ROUTERS, build_api
from switchyard.api.middleware import PREFIX
from switchyard.console.lists import check_foreign_lists

PRODUCT_ROUTERS = (
    ("/reports", "apps.reports.api.router"),
    ("/emails", "apps.mail.api.router"),
    ("/thumbnails", "apps.images.api.router"),
    ("/exports", "apps.exports.api.router"),
    ("/reconciliations", "apps.billing.api.router"),
    ("/payments", "apps.billing.api.payments_router"),
    ("/webhooks", "apps.webhooks.api.router"),
)

check_foreign_lists(admin.site)
admin.site.site_url = None  # the room, which base_site.html links
api = build_api(*PLATFORM_ROUTERS, *PRODUCT_ROUTERS)

handler400 = "project.error_pages.bad_request"
handler500 = "project.error_pages.server_error"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="switchyard-operations"), name="home"),
    path("", include("switchyard.operations.urls")),
    path("", include("apps.retention.urls")),
    path("admin/", admin.site.urls),
    path(PREFIX, api.urls),
    path("account/", include("apps.mail.urls")),
]
