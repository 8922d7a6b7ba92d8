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


def manage(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE_DIR, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_a_process_that_starts_without_its_tables_says_what_makes_them(environment: dict[str, str]) -> None:
    assert manage(environment, "migrate", "switchyard_jobs").returncode == 0
    start = "from switchyard.workers.preflight import refuse_if_wrong; refuse_if_wrong()"

    lacking = manage(environment, "shell", "--verbosity=0", "-c", start)
    migrated = manage(environment, "migrate")
    after = manage(environment, "shell", "--verbosity=0", "-c", start)

    said = r"switchyard: warning: database default: lacks \d+ migrations, switchyard_\w+\.0001_\w+ first, and what "
    assert re.search(said + r"needs their tables fails; run manage\.py migrate \(switchyard\.W037\)\n", lacking.stderr)
    assert migrated.returncode == 0 and "W037" not in migrated.stdout + migrated.stderr
    assert "W037" not in after.stderr
