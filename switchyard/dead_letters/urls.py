"""URLs of dead letters and of the quarantine; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

act_views = Views("switchyard.dead_letters.act_views")
views = Views("switchyard.dead_letters.views")

BASE = "admin/switchyard_dead_letters/deadletter/"
LETTER = f"{BASE}<int:pk>/"
GROUP = f"{BASE}group/<str:fingerprint>/"

urlpatterns = [
    path(BASE, room_view(views.letters), name="switchyard-letters"),
    path(f"{BASE}quarantine/", room_view(views.quarantined), name="switchyard-quarantine"),
    path(f"{BASE}chosen/<str:action>/", room_view(act_views.chosen), name="switchyard-letters-chosen"),
    path(f"{GROUP}<str:action>/", room_view(act_views.group), name="switchyard-letters-group"),
    path(f"{LETTER}change/", room_view(views.letter), name="switchyard-letter"),
    path(f"{LETTER}restore/", room_view(act_views.restore), name="switchyard-letter-restore"),
    path(f"{LETTER}note/", room_view(act_views.note), name="switchyard-letter-note"),
    path(f"{LETTER}edit/", room_view(act_views.edit), name="switchyard-letter-edit"),
    path(f"{LETTER}<str:action>/do/", room_view(act_views.one), name="switchyard-letter-act"),
]
