"""``pytest`` from the environment works like ``python -m pytest``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings


def test_plain_pytest_finds_the_project_and_its_plugins() -> None:
    own = {"PYTHONPATH", "DJANGO_SETTINGS_MODULE"}
    environment = {name: value for name, value in os.environ.items() if name not in own}

    done = subprocess.run(
        [Path(sys.executable).with_name("pytest"), "tests/unit/test_payload.py"],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
