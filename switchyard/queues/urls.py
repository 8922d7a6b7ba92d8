"""URLs of the queues' pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

act_views = Views("switchyard.queues.views")
views = Views("switchyard.queues.views")

BASE = "admin/operations/queues/"

urlpatterns = [
    # Beside the queues, whose names may be any word.
    path("admin/operations/chosen-queues/<str:verb>/", room_view(act_views.chosen), name="switchyard-queues-chosen"),
    path(BASE, room_view(views.queues), name="switchyard-queues"),
    path(f"{BASE}<str:name>/", room_view(views.queue), name="switchyard-queue"),
    path(f"{BASE}<str:name>/live/", room_view(views.live), name="switchyard-queue-live"),
    path(f"{BASE}<str:name>/pause/", room_view(act_views.pause), name="switchyard-queue-pause"),
    path(f"{BASE}<str:name>/purge/", room_view(act_views.purge), name="switchyard-queue-purge"),
    path(f"{BASE}<str:name>/purge/<str:purge_id>/undo/", room_view(act_views.undo), name="switchyard-queue-undo"),
    path(f"{BASE}<str:name>/relocate/", room_view(act_views.relocate), name="switchyard-queue-relocate"),
    path(f"{BASE}<str:name>/resume/", room_view(act_views.resume), name="switchyard-queue-resume"),
]
