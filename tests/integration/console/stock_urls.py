"""Addresses of a project without the API."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="switchyard-operations"), name="home"),
    path("", include("switchyard.operations.urls")),
    path("admin/", admin.site.urls),
]
