"""URLs of the actors' pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("switchyard.actors.views")

urlpatterns = [
    path("admin/operations/actors/", room_view(views.actors), name="switchyard-actors"),
    path("admin/operations/actors/<str:name>/", room_view(views.actor), name="switchyard-actor"),
    path("admin/operations/actors/<str:name>/send/", room_view(views.send), name="switchyard-actor-send"),
]
