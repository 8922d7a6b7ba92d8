"""The API of ``probe_urls`` below a prefix."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("yard/", include("tests.unit.api.probe_urls"))]
