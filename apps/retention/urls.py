"""URL of the page of the retention."""

from django.urls import path

from switchyard.console.room_view import room_view, view_of

view = room_view(view_of("apps.retention.views.retention"))

urlpatterns = [path("admin/operations/retention/", view, name="switchyard-retention")]
