"""``manage.py`` where a package or a module is missing: what to write or to run instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

MANAGE = settings.BASE_DIR / "manage.py"


def manage(*python: str, **variables: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    command = [sys.executable, *python, str(MANAGE), "check"]
    done = subprocess.run(command, cwd=MANAGE.parent, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


def check_with(settings_text: str, folder: Path) -> tuple[int, str]:
    (folder / "wrong.py").write_text(settings_text)
    return manage(DJANGO_SETTINGS_MODULE="wrong", PYTHONPATH=str(folder), SWITCHYARD_STATE_DIR=str(folder))


def test_an_interpreter_without_packages_is_told_of_the_environment() -> None:
    code, said = manage("-S")

    assert code == 1
    assert said.startswith(f"manage.py: Python at {sys.executable} has no Django; write .venv/bin/python manage.py")
    assert "Traceback" not in said


def test_a_package_that_is_missing_is_followed_by_what_installs_it(tmp_path: Path) -> None:
    code, said = check_with('INSTALLED_APPS = ["nopackage"]\n', tmp_path)

    assert code == 1
    assert "ModuleNotFoundError: No module named 'nopackage'" in said
    assert "INSTALLED_APPS in wrong names 'nopackage'; correct it" in said
    assert "or, after a pull, run bin/demo, which installs requirements.txt again" in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("INSTALLED_APPS = [*INSTALLED_APPS, 'apps.mial']", "INSTALLED_APPS in wrong names 'apps.mia"),
        ("INSTALLED_APPS = ['apps.mail' 'apps.shop']", "names 'apps.mailapps.shop'"),
        ("ROOT_URLCONF = 'project.url'", "ROOT_URLCONF in wrong names 'project.url'; correct it, and look for a comma"),
        ("DRAMATIQ_BROKER = {'BROKER': 'project.brokers.build'}", "DRAMATIQ_BROKER in wrong names 'project.brokers.b"),
        ("from project import nothing_there\nimport no_such_package", "cannot import name 'nothing_there'"),
        ("import no_such_package", "is called 'no_such_package'; correct the name, or, after a pull, run bin/demo"),
    ],
)
def test_the_setting_that_names_a_missing_module_is_named(tmp_path: Path, line: str, words: str) -> None:
    code, said = check_with(f"from project.settings import *\n{line}\n", tmp_path)

    assert code == 1
    assert words in said


def test_a_setting_that_cannot_be_read_does_not_hide_the_missing_module(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nopackage\n")
    line = "SECRET_KEY = ''\nINSTALLED_APPS = [*INSTALLED_APPS, 'broken']"

    code, said = check_with(f"from project.settings import *\n{line}\n", tmp_path)

    assert code == 1
    assert "ModuleNotFoundError: No module named 'nopackage'" in said
    assert "ImproperlyConfigured" not in said


def test_an_error_with_a_remedy_gets_no_second_one(tmp_path: Path) -> None:
    noted = "error = ModuleNotFoundError('no', name='project.url')\nerror.add_note('the first remedy')\nraise error\n"
    (tmp_path / "noted.py").write_text(noted)
    line = "ROOT_URLCONF = 'project.url'\nINSTALLED_APPS = [*INSTALLED_APPS, 'noted']"

    code, said = check_with(f"from project.settings import *\n{line}\n", tmp_path)

    assert code == 1
    assert said.rstrip().endswith("the first remedy")
