"""What a process imports that answers no request, and what the checks of the admin look at nevertheless."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

SET_UP = """
import json, sys
import django
django.setup()
"""
SAY = """
from django.contrib import admin
loaded = [name for name in ("unfold.admin", "apps.platform.jobs.admin") if name in sys.modules]
print(json.dumps([loaded, len(admin.site._registry)]))
"""
CHECK = """
from django.core.checks import run_checks
assert run_checks(tags=["admin"]) == []
"""


def test_a_start_leaves_out_the_admin_and_what_only_it_imports() -> None:
    assert said_by(SET_UP + SAY) == [[], 0]


def test_the_checks_of_the_admin_import_what_they_check() -> None:
    loaded, registered = said_by(SET_UP + CHECK + SAY)

    assert "apps.platform.jobs.admin" in loaded
    assert registered > 20


def test_the_addresses_have_every_admin() -> None:
    loaded, registered = said_by(SET_UP + "import project.urls\n" + SAY)

    assert "apps.platform.jobs.admin" in loaded
    assert registered > 20


def said_by(code: str) -> Any:
    """Return what a fresh process with the project's settings prints."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
