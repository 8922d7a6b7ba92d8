"""URLs of the queues' pages; ``apps.platform.operations.urls`` includes them."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from apps.platform.queues import act_views, views

urlpatterns = [
    path("", admin.site.admin_view(views.queues), name="switchyard-queues"),
    path("<str:name>/", admin.site.admin_view(views.queue), name="switchyard-queue"),
    path("<str:name>/live/", admin.site.admin_view(views.live), name="switchyard-queue-live"),
    path("<str:name>/pause/", admin.site.admin_view(act_views.pause), name="switchyard-queue-pause"),
    path("<str:name>/purge/", admin.site.admin_view(act_views.purge), name="switchyard-queue-purge"),
    path("<str:name>/purge/<str:purge_id>/undo/", admin.site.admin_view(act_views.undo), name="switchyard-queue-undo"),
    path("<str:name>/relocate/", admin.site.admin_view(act_views.relocate), name="switchyard-queue-relocate"),
    path("<str:name>/resume/", admin.site.admin_view(act_views.resume), name="switchyard-queue-resume"),
]
