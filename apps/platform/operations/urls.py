"""Addresses of operations; included at the root, before the admin."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from apps.platform.operations import overview_views, views, worker_views

urlpatterns = [
    path("metrics", views.metrics, name="metrics"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("admin/operations/", admin.site.admin_view(overview_views.overview), name="operations"),
    path("admin/operations/live/", admin.site.admin_view(overview_views.live), name="operations-live"),
    path("admin/operations/workers/", admin.site.admin_view(worker_views.workers), name="operations-workers"),
    path(
        "admin/operations/workers/<str:member>/stacks/",
        admin.site.admin_view(worker_views.ask_for_stacks),
        name="operations-ask-for-stacks",
    ),
    path(
        "admin/operations/workers/<str:member>/stacks/<str:name>/",
        admin.site.admin_view(worker_views.stacks),
        name="operations-stacks",
    ),
]
