"""``manage.py check`` names mistakes in an ``actors.py`` and how to mend them; a start names absent tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from project.config import BASE_DIR

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = """
from dataclasses import replace
from pathlib import Path

from tests.integration.workers.bench.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "loyalty"]
SWITCHYARD = replace(SWITCHYARD, base_dir=Path({folder!r}))
"""


class Project:
    """A project whose only app is the newcomer's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("host/__init__.py", "")
        self.write("host/settings.py", SETTINGS.format(folder=str(folder)))
        self.write("loyalty/__init__.py", "")

    def write(self, name: str, code: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)

    def check(self) -> tuple[int, str]:
        """Run ``manage.py check`` in the project's folder; return its exit code and what it printed."""
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "host.settings", "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-m", "django", "check"], cwd=self.folder, env=environment, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The project, without a mistake yet."""
    return Project(tmp_path)


def actor(arguments: str, signature: str = "name: str") -> str:
    """Return the code of an actor whose decorator is in line 3."""
    return f"import dramatiq\n\n@dramatiq.actor({arguments})\ndef hello({signature}) -> None: ...\n"


def test_an_option_that_cannot_be_used_is_refused_with_actor_file_and_line(project: Project) -> None:
    words = "unknown actor option 'max_retry' (did you mean 'max_retries'?); known are "
    project.write("loyalty/actors.py", actor('queue_name="urgent", max_retry=3'))

    code, said = project.check()

    assert code == 78
    assert re.fullmatch(
        rf"switchyard: refused to start: actor hello: .*{re.escape(words)}.* \(loyalty/actors\.py:3\)\n", said
    )


def test_a_message_sent_by_the_file_itself_is_refused_with_its_line(project: Project) -> None:
    project.write("loyalty/actors.py", actor('queue_name="urgent"') + "\nhello.send(1)\n")

    code, said = project.check()

    assert code == 78
    line = len(actor("queue_name='urgent'").splitlines()) + 2
    assert f"refused to start: loyalty/actors.py:{line}: this sends a message whenever the file is imported" in said


def test_a_second_actor_of_one_name_is_refused_with_both_places(project: Project) -> None:
    project.write("loyalty/actors.py", actor('queue_name="urgent"') * 2)

    code, said = project.check()

    assert (code, said) == (
        78,
        "switchyard: refused to start: actor hello: is declared at loyalty/actors.py:3 and again at "
        "loyalty/actors.py:7; rename one function, or write actor_name=...\n",
    )


def test_a_file_of_actors_that_is_imported_under_two_names_is_refused(project: Project) -> None:
    project.write("loyalty/jobs.py", actor('queue_name="urgent"'))
    path = f"import sys\nsys.path.append({str(project.folder / 'loyalty')!r})\n"
    project.write("loyalty/actors.py", path + "import jobs\nimport loyalty.jobs\n")

    _, said = project.check()

    assert "actor hello: is declared twice at loyalty/jobs.py:3; the file is imported under two names" in said


def test_no_check_evaluates_what_a_project_makes_when_it_is_used(project: Project) -> None:
    lazy = "from django.utils.functional import SimpleLazyObject\n\nclient = SimpleLazyObject(lambda: 1 / 0)\n"
    project.write("loyalty/actors.py", lazy + actor('queue_name="urgent"'))

    code, said = project.check()

    assert (code, "Traceback" in said) == (0, False), said


@pytest.fixture
def environment(tmp_path: Path, valkey_url: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}", "SWITCHYARD_BROKER_URL": valkey_url}


def test_a_process_that_starts_without_its_tables_says_what_makes_them(environment: dict[str, str]) -> None:
    start = "refuse_if_wrong()"
    code = "; print('next', flush=True); ".join(
        ("call_command('migrate', 'switchyard_jobs')", start, "call_command('migrate', skip_checks=False)", start)
    )
    imports = "from django.core.management import call_command; from switchyard.workers.preflight import *"
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--verbosity=0", "-c", f"{imports}; {code}"],
        cwd=BASE_DIR, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    _, lacking, migrated, after = done.stdout.split("next\n")

    said = r"switchyard: warning: database default: lacks \d+ migrations, switchyard_\w+\.0001_\w+ first, and what "
    assert re.search(said + r"needs their tables fails; run manage\.py migrate \(switchyard\.W037\)\n", lacking)
    assert "Applying" in migrated and "W037" not in migrated
    assert "W037" not in after
