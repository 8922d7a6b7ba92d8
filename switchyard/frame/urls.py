"""Addresses of the room's frame, below ``admin/operations/``."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("switchyard.frame.views")

urlpatterns = [
    path("admin/operations/find/", room_view(views.find), name="switchyard-find"),
    path("admin/operations/find/suggestions/", room_view(views.suggest), name="switchyard-suggestions"),
    path("admin/operations/steps/", room_view(views.steps), name="switchyard-steps"),
    path("admin/operations/strip/", room_view(views.strip), name="switchyard-strip"),
    path("admin/operations/keys/", room_view(views.keys), name="switchyard-keys"),
    path("admin/operations/theme/", room_view(views.theme), name="switchyard-theme"),
]
