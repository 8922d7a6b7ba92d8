"""URLs of alerts and their silences; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("switchyard.alerts.views")

BASE = "admin/switchyard_alerts/alert/"

urlpatterns = [
    path(BASE, room_view(views.alerts), name="switchyard-alerts"),
    path(f"{BASE}silences/new/", room_view(views.silence), name="switchyard-alerts-silence"),
    path(f"{BASE}silences/<int:pk>/end/", room_view(views.unsilence), name="switchyard-alerts-unsilence"),
    path(f"{BASE}channels/test/", room_view(views.test), name="switchyard-alerts-test"),
    path(f"{BASE}<int:pk>/change/", room_view(views.alert), name="switchyard-alert"),
    path(f"{BASE}<int:pk>/<str:verb>/do/", room_view(views.one), name="switchyard-alert-act"),
]
