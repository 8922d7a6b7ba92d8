"""The admin without unfold: its pages render and its actions work on Django's stock admin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.test import Client
from django.urls import reverse

ROOT = Path(__file__).parents[3]
ADMIN_TESTS = (
    "tests/integration/console/stock_pages.py",
    "tests/integration/alerts/test_admin.py",
    "tests/integration/dead_letters/test_admin.py",
    "tests/integration/jobs/test_admin.py",
    "tests/integration/operations/test_overview.py",
    "tests/integration/operations/test_workers.py",
    "tests/integration/schedules/test_commands.py",
)


def test_admin_tests_pass_without_unfold_and_ninja() -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--ds=tests.integration.console.stock_settings"),
            *ADMIN_TESTS,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )

    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]


@pytest.mark.django_db
def test_pages_stand_in_the_rooms_frame_where_unfold_is_installed(admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:switchyard_dead_letters_deadletter_changelist")).content.decode()

    assert apps.is_installed("unfold")
    assert "unfold/" not in page
    assert "switchyard_frame/frame.css" in page
