"""Small Django projects that use the installed wheel."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.wheel.environments import Environment, clean_environment

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

# Prints each page of the room with its status, a header of the host's own, and whether it shows a traceback.
ROOM = """
import os
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "host_settings"
django.setup()
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse


client = Client()
client.force_login(User.objects.create_superuser("ada"))
addresses = ["/admin/", "/admin/operations/", "/admin/operations/workers/", "/metrics", "/healthz"]
for model in admin.site._registry:
    label = model._meta.label_lower.replace(".", "_")
    if label.startswith("switchyard_"):
        addresses.append(reverse(f"admin:{label}_changelist"))
for address in addresses:
    response = client.get(address, follow=True, REMOTE_ADDR="127.0.0.1")
    stamp = response.headers.get("X-Stamp", "")
    print(address, response.status_code, stamp, b"Traceback" in response.content)
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


@contextlib.contextmanager
def running_pools(environment: Environment, host: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run every pool of a host, drained at the end; print their log where the block fails."""
    log = host / "pools.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(environment.python), "-m", "django", "switchyard", "runpools"],
            cwd=host,
            env=clean_environment(PYTHONPATH=str(host), **variables),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.kill()
        process.wait()
