"""``manage.py`` names the setting that a module which does not exist is named by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "INSTALLED_APPS = [*INSTALLED_APPS, 'apps.product.mial']",
            "INSTALLED_APPS in wrong names 'apps.product.mia",
        ),
        ("INSTALLED_APPS = ['apps.product.mail' 'apps.product.shop']", "names 'apps.product.mailapps.product.shop'"),
        ("ROOT_URLCONF = 'project.url'", "ROOT_URLCONF in wrong names 'project.url'; correct it, and look for a comma"),
        (
            "DRAMATIQ_BROKER = {'BROKER': 'project.brokers.build'}",
            "DRAMATIQ_BROKER in wrong names 'project.brokers.b",
        ),
        ("from project import nothing_there\nimport no_such_package", "cannot import name 'nothing_there'"),
        ("import no_such_package", "no package in"),
    ],
)
def test_the_setting_that_names_a_missing_module_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "wrong.py").write_text(f"from project.settings import *\n{line}\n")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "wrong",
        "PYTHONPATH": str(tmp_path),
        "SWITCHYARD_STATE_DIR": str(tmp_path),
    }

    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "check"], env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert words in done.stderr
