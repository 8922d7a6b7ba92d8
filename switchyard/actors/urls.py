"""URLs of the actors' pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from switchyard.actors import views

urlpatterns = [
    path("admin/operations/actors/", admin.site.admin_view(views.actors), name="switchyard-actors"),
    path("admin/operations/actors/<str:name>/", admin.site.admin_view(views.actor), name="switchyard-actor"),
    path("admin/operations/actors/<str:name>/send/", admin.site.admin_view(views.send), name="switchyard-actor-send"),
]
