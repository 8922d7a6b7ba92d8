"""URLs of the queues' pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from switchyard.queues import act_views, chosen_views, views

BASE = "admin/operations/queues/"

urlpatterns = [
    # Beside the queues, whose names may be any word.
    path(
        "admin/operations/chosen-queues/<str:verb>/",
        admin.site.admin_view(chosen_views.chosen),
        name="switchyard-queues-chosen",
    ),
    path(BASE, admin.site.admin_view(views.queues), name="switchyard-queues"),
    path(f"{BASE}<str:name>/", admin.site.admin_view(views.queue), name="switchyard-queue"),
    path(f"{BASE}<str:name>/live/", admin.site.admin_view(views.live), name="switchyard-queue-live"),
    path(f"{BASE}<str:name>/pause/", admin.site.admin_view(act_views.pause), name="switchyard-queue-pause"),
    path(f"{BASE}<str:name>/purge/", admin.site.admin_view(act_views.purge), name="switchyard-queue-purge"),
    path(
        f"{BASE}<str:name>/purge/<str:purge_id>/undo/",
        admin.site.admin_view(act_views.undo),
        name="switchyard-queue-undo",
    ),
    path(f"{BASE}<str:name>/relocate/", admin.site.admin_view(act_views.relocate), name="switchyard-queue-relocate"),
    path(f"{BASE}<str:name>/resume/", admin.site.admin_view(act_views.resume), name="switchyard-queue-resume"),
]
