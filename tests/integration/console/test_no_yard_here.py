"""A terminal in which no yard runs is told so, and what to write; one with a broker's address of its own as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories.commands import manage

JOB = "0c3f9b1e-6a9f-4a90-9ec5-4a3c1d5a2a11"
SEND = "from dramatiq import Message, get_broker; get_broker().enqueue(Message('default', 'none', (), {}, {}))"


@pytest.mark.parametrize(
    "arguments", [("jobs", "show", JOB), ("broker",), ("shell", "-v0", "-c", SEND)], ids=lambda arguments: arguments[0]
)
def test_a_terminal_without_a_yard_is_told_that_none_runs_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    state = {"SWITCHYARD_STATE_DIR": str(tmp_path / "var")}

    done = manage(*arguments, hidden=("SWITCHYARD_", "DJANGO_"), cwd=tmp_path, **state)

    said = done.stdout + done.stderr
    assert "yard runs in var" in said or arguments == ("broker",)
    assert "tart bin/demo here, or export SWITCHYARD_STATE_DIR=DIR for a yard that runs in another folder" in said
    assert "check SWITCHYARD_BROKER_URL" not in said
