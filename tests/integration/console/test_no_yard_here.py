"""A terminal in which no yard runs is told so, and what to write; one with a broker's address of its own as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

JOB = "0c3f9b1e-6a9f-4a90-9ec5-4a3c1d5a2a11"
SEND = "from dramatiq import Message, get_broker; get_broker().enqueue(Message('default', 'none', (), {}, {}))"


def manage(folder: Path, *arguments: str) -> str:
    """Run ``manage.py`` with the state folder of no yard; return all that it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SWITCHYARD_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments], cwd=folder.parent,
        env=kept | {"SWITCHYARD_STATE_DIR": str(folder)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments", [("jobs", "show", JOB), ("broker",), ("shell", "-v0", "-c", SEND)], ids=lambda arguments: arguments[0]
)
def test_a_terminal_without_a_yard_is_told_that_none_runs_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    said = manage(tmp_path / "var", *arguments)

    assert "yard runs in var" in said or arguments == ("broker",)
    assert "tart bin/demo here, or export SWITCHYARD_STATE_DIR=DIR for a yard that runs in another folder" in said
    assert "check SWITCHYARD_BROKER_URL" not in said
