"""Management commands, run in this process."""

from __future__ import annotations

import io
import json
from typing import Any

from django.core.management import call_command


def output_of(*words: Any) -> str:
    """Run ``manage.py switchyard`` with these words and return what it printed."""
    out = io.StringIO()
    call_command("switchyard", *map(str, words), stdout=out)
    return out.getvalue()


def json_of(*words: Any) -> Any:
    """Run a command with ``--json`` and return what it printed."""
    return json.loads(output_of(*words, "--json"))


def end_of(*words: Any) -> tuple[int, str]:
    """Run a command and return its exit code and what it printed."""
    out = io.StringIO()
    try:
        call_command("switchyard", *map(str, words), stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()
