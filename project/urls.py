"""Every address of the yard, and the one API that its apps' routers are mounted on."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from apps.platform.api.application import PREFIX, build_api

PLATFORM_ROUTERS = (("/jobs", "apps.platform.jobs.api.router"),)
PRODUCT_ROUTERS = (
    ("/emails", "apps.product.mail.api.router"),
    ("/reconciliations", "apps.product.billing.api.router"),
    ("/payments", "apps.product.billing.api.payments_router"),
)
PRODUCT_PAGES = (("account/", "apps.product.mail.urls"),)

urlpatterns = [
    path("admin/", admin.site.urls),
    path(PREFIX, build_api(*PLATFORM_ROUTERS, *PRODUCT_ROUTERS).urls),
    *(path(prefix, include(pages)) for prefix, pages in PRODUCT_PAGES),
]
