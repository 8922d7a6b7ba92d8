"""Folders stay small enough to find a file in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from django.conf import settings

WIDEST = 20
FOLDERS = ("broker", "apps", "project", "demo")  # middleware/ is flat on purpose
FLAT = {Path("switchyard/short_commands/management/commands")}  # Django looks for commands in one folder


def test_no_folder_holds_more_than_twenty_modules() -> None:
    root = Path(settings.BASE_DIR)
    widths = Counter(
        path.parent.relative_to(root)
        for folder in FOLDERS
        for path in (root / folder).rglob("*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts
    )

    assert len(widths) > 20
    assert {str(folder): count for folder, count in widths.items() if count > WIDEST and folder not in FLAT} == {}
