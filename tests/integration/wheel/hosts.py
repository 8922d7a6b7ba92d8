"""Small Django projects that use the installed wheel."""

from __future__ import annotations

from pathlib import Path

SETTINGS = """
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "of a test"
DEBUG = True
USE_TZ = True
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
ROOT_URLCONF = "host_urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": BASE_DIR / "db.sqlite3",
    "TEST": {{"NAME": BASE_DIR / "test.sqlite3"}},
}}}}
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {{"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}},
}}]
INSTALLED_APPS = [
    {first}
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
STATIC_URL = "static/"
EMAIL_TIMEOUT = 8

import switchyard

INSTALLED_APPS += switchyard.apps()
{last}
"""
URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("", include("switchyard.urls")), path("admin/", admin.site.urls)]
"""


def write_host(folder: Path, *, first: str = "", last: str = "") -> Path:
    """Write the modules ``host_settings`` and ``host_urls`` into a folder, and return the folder.

    Args:
        first: Entries of INSTALLED_APPS before all others, each with its comma.
        last: Lines at the end of the settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "host_settings.py").write_text(SETTINGS.format(first=first, last=last))
    (folder / "host_urls.py").write_text(URLS)
    return folder
