"""URLs of the pages of bulk acts; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from switchyard.bulk import views

_guard = admin.site.admin_view

urlpatterns = [
    path("admin/operations/bulk/", _guard(views.acts), name="switchyard-bulk-acts"),
    path("admin/operations/bulk/<int:number>/", _guard(views.act), name="switchyard-bulk-act"),
    path("admin/operations/bulk/<int:number>/live/", _guard(views.live), name="switchyard-bulk-act-live"),
    path("admin/operations/bulk/<int:number>/stop/", _guard(views.stop), name="switchyard-bulk-act-stop"),
    path("admin/operations/bulk/begin/<str:kind>/", _guard(views.begin), name="switchyard-bulk-begin"),
]
