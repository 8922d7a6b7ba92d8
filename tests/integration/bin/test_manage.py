"""``manage.py`` where a package or a module is missing: what to write or to run instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
    assert "after a pull, run bin/demo, which installs requirements.txt again" in said
