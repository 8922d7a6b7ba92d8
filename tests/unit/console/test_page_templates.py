"""Scripts of Django that the frame brings: the same as those of the installed Django."""

from __future__ import annotations

from pathlib import Path

import django
import pytest

from switchyard.console.page_templates import SCRIPTS

ROOT = Path(__file__).resolve().parents[3]
THEIRS = Path(django.__file__).parent / "contrib" / "admin" / "static"
OURS = ROOT / "switchyard" / "frame" / "static"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_django_is_unchanged(name: str) -> None:
    assert (OURS / SCRIPTS[name]).read_bytes() == (THEIRS / name).read_bytes()
