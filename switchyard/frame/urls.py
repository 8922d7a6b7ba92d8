"""Addresses of the room's frame, below ``admin/operations/``."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from switchyard.frame import views

urlpatterns = [
    path("admin/operations/find/", admin.site.admin_view(views.find), name="switchyard-find"),
    path(
        "admin/operations/find/suggestions/",
        admin.site.admin_view(views.suggest),
        name="switchyard-suggestions",
    ),
    path("admin/operations/steps/", admin.site.admin_view(views.steps), name="switchyard-steps"),
    path("admin/operations/strip/", admin.site.admin_view(views.strip), name="switchyard-strip"),
    path("admin/operations/keys/", admin.site.admin_view(views.keys), name="switchyard-keys"),
    path("admin/operations/theme/", admin.site.admin_view(views.theme), name="switchyard-theme"),
]
