"""URLs of the pages of bulk acts; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("switchyard.bulk.views")

urlpatterns = [
    path("admin/operations/bulk/", room_view(views.acts), name="switchyard-bulk-acts"),
    path("admin/operations/bulk/<int:number>/", room_view(views.act), name="switchyard-bulk-act"),
    path("admin/operations/bulk/<int:number>/live/", room_view(views.live), name="switchyard-bulk-act-live"),
    path("admin/operations/bulk/<int:number>/stop/", room_view(views.stop), name="switchyard-bulk-act-stop"),
    path("admin/operations/bulk/begin/<str:kind>/", room_view(views.begin), name="switchyard-bulk-begin"),
]
