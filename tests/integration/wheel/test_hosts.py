"""The wheel: its modules, its types, and projects with it that the page does not show."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

import switchyard
from project.config import BASE_DIR as REPOSITORY
from tests.integration.wheel.environments import clean_environment, run
from tests.integration.wheel.hosts import Host, write_host
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)  # builds, installs and starts processes, beside other tests
MODEL = """
from django.db import models

class {name}(models.Model):
    text = models.CharField(max_length=100)
"""
APP = """
from django.apps import AppConfig

class Config(AppConfig):
    name = "{name}"
"""
NAMESAKES = {
    "apps/shop/actors.py": """
import dramatiq
from jobs.models import Job

@dramatiq.actor
def note(text):
    Job.objects.create(text=text)
""",
    "api/apps.py": APP.format(name="api"),
    "api/models.py": MODEL.format(name="ApiToken"),
    "jobs/apps.py": APP.format(name="jobs"),
    "jobs/models.py": MODEL.format(name="Job"),
    "jobs/management/commands/jobs.py": """
from django.core.management.base import BaseCommand
from jobs.models import Job

class Command(BaseCommand):
    def handle(self, **options):
        self.stdout.write("the host's own: " + ", ".join(Job.objects.values_list("text", flat=True)))
""",
    "middleware/stamp.py": """
def stamp(get_response):
    def middleware(request):
        response = get_response(request)
        response["X-Stamp"] = "the host's own"
        return response
    return middleware
""",
}
NAMESAKE_SETTINGS = """
INSTALLED_APPS += ["apps.shop", "api", "jobs"]
MIDDLEWARE += ["middleware.stamp.stamp", "switchyard.api.middleware.problem_documents"]
"""


@pytest.mark.long
def test_project_with_packages_of_the_same_names_works(full, broker_url, tmp_path):
    namesake = tmp_path / "switchyard/broker"
    namesake.mkdir(parents=True)
    (namesake / "__init__.py").touch()
    host = Host(full, write_host(tmp_path, NAMESAKES, last=NAMESAKE_SETTINGS), broker_url)

    host.manage("makemigrations", "api", "jobs")
    assert "No changes detected" in host.manage("makemigrations", "--check", "--dry-run")
    host.manage("migrate")
    assert "System check identified no issues" in host.manage("check")
    sent = host.manage("shell", "-c", "from apps.shop.actors import note; print(note.send('from a worker').message_id)")
    with host.running_pools() as pools:
        wait_for(lambda: "from a worker" in host.manage("jobs"), timeout_s=120)
    assert pools.returncode == 0
    assert "succeeded" in host.manage("switchyard", "jobs", "show", sent.splitlines()[-1])
    assert "/admin/operations/ 200 the host's own False" in host.room()


CHECK = """
import sys
from django.core.management import execute_from_command_line

execute_from_command_line(["manage.py", "check"])
USELESS = {"pdb", "pendulum", "periodiq", "psutil", "redis", "rich", "structlog", "unittest", "urllib3", "yaml"}
USELESS |= {"switchyard." + name for name in ("frame.views", "jobs.live", "jobs.presentation", "operations.queries")}
print("loaded:", *sorted(USELESS & sys.modules.keys()))
"""
OVERVIEW = """
import os
import sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "host_settings"
django.setup()
from django.contrib.auth.models import User
from django.test import Client

client = Client()
client.force_login(User.objects.create_superuser("eve"))
status = client.get("/admin/operations/").status_code
USELESS = {"psutil", "smtplib", "urllib3", "yaml"}
print(status, *sorted(name for name in sys.modules if name in USELESS or ".migrations.0" in name))
"""


def test_project_without_ninja_works_and_loads_little(least, broker_url, tmp_path):
    host = Host(least, write_host(tmp_path), broker_url)

    checked = host.python("-c", CHECK)
    host.manage("migrate")
    overview = host.python("-c", OVERVIEW)
    pages = host.room()

    assert "System check identified no issues" in checked
    assert checked.splitlines()[-1].strip() == "loaded:"
    assert overview.splitlines()[-1] == "200"
    assert len(pages) > 8
    assert [line for line in pages if " 200 " not in line or not line.endswith("False")] == []


PRODUCTION = """
DEBUG = False
ALLOWED_HOSTS = ["*"]
STATIC_ROOT = BASE_DIR / "static"
"""


def test_in_production_commands_need_no_broker_or_name_all_that_lacks(least, tmp_path):
    host = Host(least, write_host(tmp_path, last=PRODUCTION))

    for command in ("makemigrations --check", "collectstatic --noinput", "migrate", "test"):
        host.manage(*command.split())
    refused = host.manage("check", code=78)

    for name in ("SWITCHYARD_BROKER_URL: is not set", "SWITCHYARD_PUBLIC_URL: is not set"):
        assert f"refused to start: {name}" in refused


BARE_SETTINGS = """
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", *switchyard.apps(), "news"]
MIDDLEWARE = []
"""
BARE = {
    "news/actors.py": """
import dramatiq

@dramatiq.actor(max_retries=0)
def add(name):
    if name == "bad":
        raise ValueError(name)
""",
    "host_urls.py": """
from django.urls import include, path

urlpatterns = [path("", include("switchyard.urls"))]
""",
}
BARE_PAGES = """
import os
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "host_settings"
django.setup()
from django.test import Client

for address in ("/metrics", "/healthz", "/readyz", "/admin/operations/", "/api/v1/status"):
    response = Client().get(address, REMOTE_ADDR="127.0.0.1")
    print(address, response.status_code, b'switchyard_dead_letters{queue="default"} 1.0' in response.content)
"""


def test_project_without_room_or_api_works_and_is_measured(least, broker_url, tmp_path):
    host = Host(least, write_host(tmp_path, BARE, last=BARE_SETTINGS), f"{broker_url}?db=1")

    assert "System check identified no issues" in host.manage("check")
    host.manage("migrate")
    host.manage("shell", "-c", "from news.actors import add; add.send('good'); add.send('bad')")
    with host.running_pools() as pools:
        wait_for(lambda: "ValueError: bad" in host.manage("switchyard", "deadletters", "list"), timeout_s=120)
        wait_for(lambda: "succeeded" in host.manage("switchyard", "jobs", "list"), timeout_s=120)
        pages = host.python("-c", BARE_PAGES)
    assert pools.returncode == 0
    assert [line for line in pages.splitlines() if line.startswith("/")] == [
        *("/metrics 200 True", "/healthz 200 False", "/readyz 200 False", "/admin/operations/ 404 False"),
        "/api/v1/status 404 False",
    ]


TESTED_APP = {
    "news/actors.py": """
import dramatiq
from django.contrib.auth.models import Group

@dramatiq.actor
def add(name: str) -> None:
    Group.objects.get_or_create(name=name)
""",
    "news/tests.py": """
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.test import TestCase
from django.utils import timezone
from switchyard.jobs.services import enqueue_on_commit
from switchyard.testing import advance, assert_enqueued, assert_nothing_enqueued, redelivered, run_enqueued
from news.actors import add

class Plain(TestCase):
    def test_a_plain_test_case(self):
        enqueue_on_commit(add, "readers")
        assert_enqueued(add, args=("readers",))
        run_enqueued()
        assert Group.objects.filter(name="readers").exists()

@pytest.mark.django_db
def test_the_fixture(switchyard_broker):
    assert_nothing_enqueued()
    add.send("writers")
    assert redelivered() == ["add"]

@pytest.mark.django_db
def test_eager_and_time(switchyard_eager):
    before = timezone.now()
    add.send("at once")
    assert Group.objects.filter(name="at once").exists()
    advance(seconds=3_600, schedules=False)
    assert timezone.now() - before > timedelta(minutes=59)
""",
    "pytest.ini": """
[pytest]
DJANGO_SETTINGS_MODULE = host_settings
python_files = tests.py
switchyard_in_memory = true
addopts = -q -p no:cacheprovider
filterwarnings = error
""",
}


def test_tests_of_a_project_run_with_the_plugin_and_without_a_server(full, tmp_path):
    folder = write_host(tmp_path, TESTED_APP, last='INSTALLED_APPS += ["news"]')

    output = Host(full, folder, "redis://127.0.0.1:9/0").python("-m", "pytest", "--trace-config")

    assert "3 passed" in output
    assert "switchyard.pytest_plugin" in output


# Executed in processes of its own, which it patches before anything else is loaded.
PATCH_FIRST = ("switchyard.workers.gevent_main",)
# Of the extras s3, gcs and traces, and of a tracker: each is imported where an address names it, or the project does.
CLIENTS = {
    "switchyard.files.google": "google", "switchyard.files.s3": "boto3",
    "switchyard.middleware.error_tracker": "sentry_sdk", "switchyard.middleware.tracing": "opentelemetry",
}  # fmt: skip
IMPORT_ALL = """
import importlib, json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "host_settings"
django.setup()
missing = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name
print(json.dumps(missing))
"""
ACTORS = '''
from __future__ import annotations

import dramatiq
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.jobs.once import once
from switchyard.jobs.services import enqueue_on_commit, report_progress, submit


@dramatiq.actor(queue_name="default")
def count(customer_id: int) -> dict[str, int]:
    """Count something."""
    with once(f"count/{customer_id}") as first:
        if first:
            report_progress(50, 100)
    return {"customer": customer_id}


def send(customer_id: int) -> str:
    """Send it."""
    enqueue_on_commit(count, kwargs={"customer_id": customer_id})
    return count.send(customer_id).message_id


YARD = Yard(
    queues=(Queue("default", 1_000, 60_000, 90_000),),
    pools=(Pool("default", "threads", ("default",), processes=1, slots=4),),
)
'''


def modules(wheel: Path) -> list[str]:
    """Return the dotted names of the wheel's modules that may be loaded into one process."""
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    dotted = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names]
    return [name for name in dotted if name not in PATCH_FIRST and not name.endswith("__main__")]


def test_every_module_is_imported(full, wheel, tmp_path):
    names = modules(wheel)

    output = full.run("-W", "error", "-c", IMPORT_ALL, json.dumps(names), cwd=write_host(tmp_path))

    assert len(names) > 300
    assert json.loads(output.splitlines()[-1]) == CLIENTS


def test_module_that_patches_its_process_is_imported_alone(full, tmp_path):
    for name in PATCH_FIRST:
        full.run("-W", "error", "-c", f"import {name}", cwd=tmp_path)


def test_without_extras_only_their_modules_lack_something(least, wheel, tmp_path):
    output = least.run("-c", IMPORT_ALL, json.dumps(modules(wheel)), cwd=write_host(tmp_path))

    missing = json.loads(output.splitlines()[-1])
    extras = {"django_tasks", "dramatiq_abort", "ninja", "pydantic", "gevent", "uvicorn", "pika", "pytest"}
    assert set(missing.values()) <= extras | set(CLIENTS.values())
    assert "switchyard.jobs.api" in missing


@pytest.mark.long
def test_strictly_typed_actors_of_a_host_find_the_types(full, tmp_path):
    (tmp_path / "actors.py").write_text(ACTORS)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(ACTORS.replace('Queue("default", 1_000', 'Queue(1_000, "default"'))
    mypy = (Path(sys.executable).with_name("mypy"), "--strict", "--python-executable", full.python)
    common = ("--config-file", "/dev/null", "--cache-dir", tmp_path / "cache")

    run(*mypy, *common, "actors.py", cwd=tmp_path, environment=clean_environment())
    refused = run(*mypy, *common, "wrong.py", cwd=tmp_path, environment=clean_environment(), code=1)

    assert 'incompatible type "int"; expected "str"' in refused


FOLDERS = {"middleware": "switchyard/middleware", "switchyard": "switchyard"}


def test_command_prints_the_path_of_the_wheel(clone, wheel):
    assert wheel == clone / f"dist/switchyard-{switchyard.__version__}-py3-none-any.whl"
    assert "bin/package [FOLDER]" in run(clone / "bin/package", "--help", cwd=clone, environment=clean_environment())


def test_wheel_is_small(wheel):
    # 1.51 MB, of which 0.13 are the room's two fonts, which no compression makes smaller.
    assert wheel.stat().st_size < 1_600_000


def test_wheel_holds_every_file_of_its_packages_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{new}/{file.relative_to(REPOSITORY / old)}"
        for old, new in FOLDERS.items()
        for file in (REPOSITORY / old).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    metadata = {name.partition("/")[2] for name in names if ".dist-info/" in name}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert metadata == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
