"""A process that starts without its tables says what makes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from project.config import BASE_DIR


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
