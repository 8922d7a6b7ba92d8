"""Every address of the yard, and the one API that its apps' routers are mounted on."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from apps.platform.api.application import build_api
from apps.platform.api.middleware import PREFIX

PLATFORM_ROUTERS = (
    ("/jobs", "apps.platform.jobs.api.router"),
    ("/queues", "apps.platform.operations.api.router"),
)
PRODUCT_ROUTERS = (
    ("/reports", "apps.product.reports.api.router"),
    ("/emails", "apps.product.mail.api.router"),
    ("/thumbnails", "apps.product.images.api.router"),
    ("/exports", "apps.product.exports.api.router"),
    ("/reconciliations", "apps.product.billing.api.router"),
    ("/payments", "apps.product.billing.api.payments_router"),
    ("/webhooks", "apps.product.webhooks.api.router"),
)
PRODUCT_PAGES = [
    ("account/", "apps.product.mail.urls"),
]

api = build_api(*PLATFORM_ROUTERS, *PRODUCT_ROUTERS)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="operations"), name="home"),
    path("", include("apps.platform.operations.urls")),
    path("admin/", admin.site.urls),
    path(PREFIX, api.urls),
    *(path(prefix, include(pages)) for prefix, pages in PRODUCT_PAGES),
]
