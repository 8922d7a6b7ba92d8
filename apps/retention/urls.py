"""URL of the page of the retention."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import room_view, view_of

urlpatterns = [
    path(
        "admin/operations/retention/", room_view(view_of("apps.retention.views.retention")), name="switchyard-retention"
    )
]
