"""Every address of the yard, and the one API that its apps' routers are mounted on."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
]
