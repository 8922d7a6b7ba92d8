"""Django's own test command is refused: it would work on the yard that runs."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command


def test_manage_py_test_is_refused_with_the_command_to_run() -> None:
    with pytest.raises(CommandError, match=r"run bin/test or \.venv/bin/pytest"):
        call_command("test")
