"""Management commands, run in this process, or in one of their own."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.core.management import call_command

from project.config import BASE_DIR


def output_of(*words: Any) -> str:
    """Run ``manage.py switchyard`` with these words and return what it printed."""
    out = io.StringIO()
    call_command("switchyard", *map(str, words), stdout=out)
    return out.getvalue()


def json_of(*words: Any) -> Any:
    return json.loads(output_of(*words, "--json"))


def end_of(*words: Any) -> tuple[int, str]:
    """Run a command and return its exit code and what it printed."""
    out = io.StringIO()
    try:
        call_command("switchyard", *map(str, words), stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def manage(
    *words: str, hidden: tuple[str, ...] = (), cwd: Path = BASE_DIR, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py`` in a process of its own.

    Args:
        hidden: Beginnings of the names of variables that it does not get from this process.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    command = [sys.executable, str(BASE_DIR / "manage.py"), *words]
    return subprocess.run(command, cwd=cwd, env=kept | variables, capture_output=True, text=True, timeout=120)
