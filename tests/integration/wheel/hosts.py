"""Small Django projects that use the installed wheel."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

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


def write_host(folder: Path, files: Mapping[str, str] = MappingProxyType({}), *, last: str = "") -> Path:
    """Write the modules ``host_settings`` and ``host_urls`` into a folder, and return the folder.

    Args:
        files: Files that it has besides, or in place of these; those in folders belong to packages.
        last: Lines at the end of the settings.
    """
    modules = {"host_settings.py": SETTINGS.format(last=last), "host_urls.py": URLS}
    for name, text in {**modules, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for package in (folder / name).parents:
            if package == folder:
                break
            (package / "__init__.py").touch()
        (folder / name).write_text(text)
    return folder


@dataclass(frozen=True)
class Host:
    """A project whose processes have an installed wheel.

    Args:
        broker_url: "" where none is set.
    """

    environment: Environment
    folder: Path
    broker_url: str = ""

    @property
    def variables(self) -> dict[str, str]:
        broker = {"SWITCHYARD_BROKER_URL": self.broker_url} if self.broker_url else {}
        return {"DJANGO_SETTINGS_MODULE": "host_settings", "PYTHONPATH": str(self.folder), **broker}

    def python(self, *arguments: str, code: int = 0) -> str:
        return self.environment.run(*arguments, cwd=self.folder, code=code, **self.variables)

    def manage(self, *arguments: str, code: int = 0) -> str:
        return self.python("-m", "django", *arguments, code=code)

    def room(self) -> list[str]:
        return [line for line in self.python("-c", ROOM).splitlines() if line.startswith("/")]

    @contextlib.contextmanager
    def running_pools(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run every pool, drained at the end; print their log where the block fails."""
        log = self.folder / "pools.log"
        command = [str(self.environment.python), "-m", "django", "switchyard", "runpools"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=clean_environment(**self.variables), stdout=output, stderr=output
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
