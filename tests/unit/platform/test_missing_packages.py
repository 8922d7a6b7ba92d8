"""A package that a setting needs and an installation lacks: one sentence with what installs it, and exit code 78."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from switchyard.addon import addons
from switchyard.files.addresses import declared_storage
from switchyard.setting_values import DRIVER, PACKAGES, WEB_SERVER, InvalidSetting, refuse_without_driver

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


def check_without(
    hidden: str, folder: Path, variables: dict[str, str], *command: str
) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(HIDING)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SWITCHYARD_", "DATABASE_"))}
    environment = kept | {"HIDDEN": hidden, "PYTHONPATH": str(folder), "SWITCHYARD_STATE_DIR": str(folder), **variables}
    return subprocess.run(
        [sys.executable, "manage.py", *(command or ["check"])], env=environment, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hidden", "variable", "value", "remedy"),
    [
        ("psycopg psycopg2", "DATABASE_URL", POSTGRES, "run: pip install 'psycopg[binary,pool]"),
        ("psycopg_pool", "DATABASE_URL", f"{POSTGRES}?pool=4", "run: pip install 'psycopg[binary,pool]"),
        ("boto3", "SWITCHYARD_STORAGE_URL", "s3://bucket", "run: pip install 'django-storages[s3]"),
        ("storages", "SWITCHYARD_RESULTS_URL", "s3://bucket", "run: pip install 'django-storages[s3]"),
        ("google.cloud.storage", "SWITCHYARD_STORAGE_URL", "gs://bucket", "run: pip install 'django-storages[google]"),
        ("google.cloud.storage", "SWITCHYARD_RESULTS_URL", "gs://bucket", "run: pip install 'django-storages[google]"),
    ],
)
def test_the_process_ends_with_one_line(tmp_path: Path, hidden: str, variable: str, value: str, remedy: str) -> None:
    done = check_without(hidden, tmp_path, {variable: value})

    assert done.returncode == 78, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("switchyard: refused to start: ")
    assert remedy in line
    assert "hunter2" not in line


def test_the_web_without_its_server_ends_with_one_line(tmp_path: Path) -> None:
    done = check_without("uvicorn", tmp_path, {}, "switchyard", "runweb")

    assert (done.returncode, len(done.stderr.splitlines())) == (78, 1), done.stderr
    assert "run: pip install 'uvicorn" in done.stderr


def test_an_address_in_a_projects_own_settings_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        declared_storage("FILES_URL", "s3://")

    assert ended.value.code == 78
    assert "refused to start: FILES_URL: '' is not a name of a bucket" in capfd.readouterr().err


def test_either_driver_of_django_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    databases = {"default": {"ENGINE": "django.db.backends.postgresql"}}
    with pytest.raises(
        InvalidSetting, match=r'DATABASES\["default"\]: PostgreSQL needs the package psycopg: .*; run: pip'
    ):
        refuse_without_driver(databases)

    monkeypatch.setitem(sys.modules, "psycopg2", sys)

    refuse_without_driver(databases)


def test_other_databases_need_no_driver_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    refuse_without_driver({"default": {}, "old": {"ENGINE": "django.db.backends.sqlite3"}})


def test_the_requirements_are_those_of_the_wheels_extras() -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]

    packages = (*PACKAGES.values(), *(found.package for found in addons()))
    for _, requirement, extra in filter(any, packages):
        assert extras[extra] == [requirement]
    assert extras[DRIVER[1]] == [DRIVER[0]]
    assert WEB_SERVER[1] in extras[WEB_SERVER[2]]
