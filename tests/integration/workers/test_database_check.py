"""A database of before the tables had their names of today is refused at start, with the command that sets it aside."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from project.config import BASE_DIR


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The SQLite file of a project that was migrated before."""
    file = tmp_path / "db.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE django_migrations (id integer PRIMARY KEY, app text, name text, applied text)")
        connection.execute("INSERT INTO django_migrations VALUES (1, 'jobs', '0002_done_once', '2026-11-20 10:00:00')")
    connection.close()
    return file


@pytest.fixture
def environment(tmp_path: Path, valkey_url: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}", "SWITCHYARD_BROKER_URL": valkey_url}


def manage(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["runpool urgent", "runscheduler"])
def test_a_process_that_works_refuses_an_old_database(old: Path, environment: dict[str, str], command: str) -> None:
    done = manage(environment, *command.split())

    assert done.returncode == 78
    assert "refused to start: database default: was made before" in done.stderr
    assert "(switchyard.E021)" in done.stderr


@pytest.mark.parametrize(
    "load",
    [
        pytest.param("import project.asgi", id="before the event loop"),
        pytest.param(
            "import asyncio\nasync def load(): import project.asgi\nasyncio.run(load())", id="in it, as uvicorn"
        ),
    ],
)
def test_the_web_refuses_an_old_database(old: Path, environment: dict[str, str], load: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", load],
        cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip

    assert done.returncode == 78
    assert "switchyard.E021" in done.stderr


def test_migrate_refuses_it_and_the_command_it_names_makes_room_for_a_new_one(
    old: Path, environment: dict[str, str]
) -> None:
    refused = manage(environment, "migrate")

    assert refused.returncode == 1
    _, remedy, _ = refused.stderr.split("`", 2)
    subprocess.run(["sh", "-c", remedy], check=True, timeout=60)
    assert (old.parent / "before" / old.name).exists() and not old.exists()
    assert shlex.split(remedy)[:2] == ["mkdir", str(old.parent / "before")]
    assert manage(environment, "migrate").returncode == 0


def test_doctor_names_an_old_database(old: Path, environment: dict[str, str]) -> None:
    done = manage(environment, "doctor", "--json")

    assert done.returncode == 2
    assert "switchyard.E021" in done.stdout
    assert "mkdir" in done.stdout


def test_the_demo_says_what_to_do_with_an_old_state_folder(old: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--state", str(old.parent), "--no-sample"],
        cwd=BASE_DIR, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "was made before" in done.stderr
    assert "bin/demo --state DIR" in done.stderr


def test_no_file_is_made_by_looking(environment: dict[str, str], tmp_path: Path) -> None:
    look = "from switchyard.workers.checks.database import made_before; print(made_before('default'))"

    done = manage(environment, "shell", "--verbosity=0", "-c", look)

    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "db.sqlite3").exists()


@pytest.mark.parametrize("made", [False, True])
def test_a_process_that_starts_without_its_tables_says_what_makes_them(
    environment: dict[str, str], tmp_path: Path, made: bool
) -> None:
    if made:
        sqlite3.connect(tmp_path / "db.sqlite3").close()
        assert manage(environment, "migrate", "switchyard_jobs").returncode == 0
    start = "from switchyard.workers.preflight import refuse_if_wrong; refuse_if_wrong()"

    lacking = manage(environment, "shell", "--verbosity=0", "-c", start)
    migrated = manage(environment, "migrate")
    after = manage(environment, "shell", "--verbosity=0", "-c", start)

    said = r"switchyard: warning: database default: lacks \d+ migrations, switchyard_\w+\.0001_\w+ first, and what "
    assert re.search(said + r"needs their tables fails; run manage\.py migrate \(switchyard\.W037\)\n", lacking.stderr)
    assert migrated.returncode == 0 and "W037" not in migrated.stdout + migrated.stderr
    assert "W037" not in after.stderr


@pytest.mark.long
def test_a_warning_of_a_lacking_migration_is_counted_and_can_be_silenced(
    environment: dict[str, str], tmp_path: Path
) -> None:
    assert manage(environment, "migrate").returncode == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM django_migrations WHERE app = 'switchyard_audit' AND name LIKE '0001%'")
    start = "from switchyard.workers.preflight import refuse_if_wrong; refuse_if_wrong()"
    silence = "from django.conf import settings; settings.SILENCED_SYSTEM_CHECKS = ['switchyard.W037']; "
    own = "from django.conf import settings; settings.MIGRATION_MODULES = {'switchyard_audit': None}; "

    lacking = manage(environment, "shell", "--verbosity=0", "-c", start)
    silenced = manage(environment, "shell", "--verbosity=0", "-c", silence + start)
    elsewhere = manage(environment, "shell", "--verbosity=0", "-c", own + start)

    assert "database default: lacks 1 migration, switchyard_audit.0001_" in lacking.stderr
    assert "W037" not in silenced.stderr
    assert "W037" not in elsewhere.stderr
