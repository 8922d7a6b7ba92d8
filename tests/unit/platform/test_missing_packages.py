"""Processes of a host project: packages that nobody installed, add-ons, its logging, metrics, commands and web."""

import json
import logging
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest import mock

import pytest
from django.core.management import CommandError, call_command

from project.config import BASE_DIR
from switchyard import addon
from switchyard.addon import Addon, addon_for, addons
from switchyard.commands import COMMANDS
from switchyard.files.addresses import declared_storage
from switchyard.serving import server
from switchyard.setting_values import DRIVER, PACKAGES, WEB_SERVER, InvalidSetting, refuse_without_driver
from switchyard.workers import preflight
from tests.factories.commands import manage

# Found by Python before its own: hides packages, as if they were not installed.
HIDING = """\
import os, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in os.environ["HIDDEN"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
POSTGRES = "postgresql://user:hunter2@127.0.0.1:1/yard"
OTHER = Addon(
    name="other", title="Other", schemes=("other", "others"), look="tests.unit.platform.test_missing_packages:look"
)


def check_without(
    hidden: str, folder: Path, variables: dict[str, str], *command: str
) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(HIDING)
    own = {"HIDDEN": hidden, "PYTHONPATH": str(folder), "SWITCHYARD_STATE_DIR": str(folder), **variables}
    return manage(*(command or ["check"]), hidden=("SWITCHYARD_", "DATABASE_"), **own)


@pytest.mark.parametrize(
    ("hidden", "variables", "remedy"),
    [
        ("psycopg psycopg2", {"DATABASE_URL": POSTGRES}, "psycopg[binary,pool]"),
        ("psycopg_pool", {"DATABASE_URL": f"{POSTGRES}?pool=4"}, "psycopg[binary,pool]"),
        ("boto3", {"SWITCHYARD_STORAGE_URL": "s3://bucket"}, "django-storages[s3]"),
        ("storages", {"SWITCHYARD_RESULTS_URL": "s3://bucket"}, "django-storages[s3]"),
        ("google.cloud.storage", {"SWITCHYARD_STORAGE_URL": "gs://bucket"}, "django-storages[google]"),
        ("google.cloud.storage", {"SWITCHYARD_RESULTS_URL": "gs://bucket"}, "django-storages[google]"),
        ("uvicorn", {}, "uvicorn"),
    ],
)
def test_the_process_ends_with_one_line(tmp_path, hidden, variables, remedy):
    done = check_without(hidden, tmp_path, variables, *(["switchyard", "runweb"] if hidden == "uvicorn" else []))

    assert done.returncode == 78, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("switchyard: refused to start: ")
    assert f"run: pip install '{remedy}" in line and "hunter2" not in line


def test_an_address_in_a_projects_own_settings_ends_the_process(capfd):
    with pytest.raises(SystemExit) as ended:
        declared_storage("FILES_URL", "s3://")

    assert ended.value.code == 78
    assert "refused to start: FILES_URL: '' is not a name of a bucket" in capfd.readouterr().err


def test_either_driver_of_django_will_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    databases = {"default": {"ENGINE": "django.db.backends.postgresql"}}
    with pytest.raises(
        InvalidSetting, match=r'DATABASES\["default"\]: PostgreSQL needs the package psycopg: .*; run: pip'
    ):
        refuse_without_driver(databases)

    refuse_without_driver({"default": {}, "old": {"ENGINE": "django.db.backends.sqlite3"}})
    monkeypatch.setitem(sys.modules, "psycopg2", sys)
    refuse_without_driver(databases)


def test_the_requirements_are_those_of_the_wheels_extras():
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]

    packages = (*PACKAGES.values(), *(found.package for found in addons()))
    for _, requirement, extra in filter(any, packages):
        assert extras[extra] == [requirement]
    assert extras[DRIVER[1]] == [DRIVER[0]]
    assert WEB_SERVER[1] in extras[WEB_SERVER[2]]


def look() -> str:
    return "seen"


@pytest.fixture
def fresh() -> Iterator[None]:
    """Keep what one test finds from the next."""
    addon._own.cache_clear()
    addon._installed.cache_clear()
    yield
    addon._own.cache_clear()
    addon._installed.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("other", "tests.unit.platform.test_missing_packages:OTHER", addon.FOLDER)
    monkeypatch.setattr(addon, "entry_points", lambda group: [entry] if group == addon.FOLDER else [])


@pytest.mark.usefixtures("fresh", "installed")
def test_an_installed_distribution_brings_an_add_on_whose_hooks_are_resolved_when_they_are_asked_for():
    assert addon_for("others") is OTHER
    assert addon_for("OTHER") is OTHER
    assert list(addons())[-1] is OTHER
    assert addon_for("carrier-pigeon") is None
    assert (OTHER.load("look"), OTHER.load("place")) == (look, None)
    assert (OTHER.call("look", "-"), OTHER.call("check", "-", 1)) == ("seen", "-")


@pytest.mark.usefixtures("fresh")
def test_without_the_folder_there_is_none(monkeypatch):
    monkeypatch.setattr(addon, "FOLDER", "switchyard.addons_that_were_deleted")
    assert list(addons()) == []


@pytest.mark.usefixtures("fresh")
def test_no_two_add_ons_take_over_one_scheme():
    schemes = [scheme for found in addons() for scheme in found.schemes]
    assert len(schemes) == len(set(schemes))


METRICS = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry, Counter
from switchyard.workers.metrics import PoolFolder
PoolFolder(Path(sys.argv[1]), "default")
Counter("counted", "Counted.", ("queue",), registry=CollectorRegistry()).labels("default").inc()
print(*sorted(file.name.partition("_")[0] for file in (Path(sys.argv[1]) / "default").glob("*.db")))
"""
LOGGING = """
import logging, sys
from switchyard.broker.process import once_imported
from switchyard.middleware import logs
logging.basicConfig(format="host: %(levelname)s %(name)s %(message)s", stream=sys.stdout, level=logging.INFO)
once_imported("structlog", logs.use_standard_logging)
import structlog
log = structlog.get_logger("switchyard.jobs")
log.debug("not shown")
log.info("succeeded", queue="default", note="two\\nlines 100%")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def run(code: str, *arguments: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(BASE_DIR)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_pools_metrics_go_to_its_files_in_a_process_that_set_no_folder(tmp_path):
    assert run(METRICS, str(tmp_path)).split() == ["counter"]


def test_logs_go_through_the_hosts_handlers_whenever_structlog_is_imported():
    lines = run(LOGGING).splitlines()

    assert lines[0] == "host: INFO switchyard.jobs succeeded queue=default note=two\\nlines 100%"
    assert lines[1] == "host: ERROR switchyard.jobs failed"
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("handled", [True, False])
def test_a_process_that_works_logs_where_nothing_is_configured(handled, monkeypatch):
    configured: list[str] = []
    monkeypatch.setattr(preflight.logs, "configure", lambda log_format, **named: configured.append(log_format))
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda logger: handled)

    preflight.log_to_standard_error()

    assert configured == ([] if handled else ["console"])


def test_a_command_is_run_with_its_own_arguments():
    done = manage("switchyard", "topology", "--json")

    assert done.returncode == 0
    assert done.stdout == manage("topology", "--json").stdout
    assert json.loads(done.stdout)


def test_an_unknown_command_is_refused_with_the_nearest_none_with_all_and_test_with_what_runs_them():
    unknown, none = manage("switchyard", "runpol"), manage("switchyard")

    assert (unknown.returncode, none.returncode) == (2, 2)
    assert "switchyard: there is no command 'runpol'; did you mean runpool?\n" in unknown.stderr
    assert [line.split()[0] for line in none.stdout.partition("commands:\n")[2].splitlines()] == list(COMMANDS)
    with pytest.raises(CommandError, match=r"run bin/test or \.venv/bin/pytest"):
        call_command("test")


@mock.patch.object(server, "refuse_if_wrong")
def test_a_project_without_asgi_is_served(_, settings):
    settings.ROOT_URLCONF = "urls"

    application = server.load_application()

    assert callable(application) and application.body_bytes == server.BODY_BYTES, "its pages may take uploads"
