"""Pages that mails lead to. Mounted at ``account/``."""

from __future__ import annotations

from django.urls import path

from apps.mail import views

urlpatterns = [
    path("reset/", views.choose_password, name="mail-choose-password"),
    path("reset/<str:token>/", views.open_reset_link, name="mail-reset"),
]
