from __future__ import annotations

import pytest
from django.conf import settings

from switchyard.dead_letters.presentation import short_paths


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"{settings.BASE_DIR}/apps/reports/actors.py", "apps/reports/actors.py"),
        (f"{settings.BASE_DIR}/.venv/lib/python3.11/site-packages/dramatiq/worker.py", "dramatiq/worker.py"),
        ("/usr/lib/python3.12/json/decoder.py", "json/decoder.py"),
        ("/srv/elsewhere/plugin.py", "/srv/elsewhere/plugin.py"),
    ],
)
def test_files_are_named_from_the_project_or_their_package(path: str, shown: str) -> None:
    frame = f'  File "{path}", line 3, in run\n    go()\n'

    assert short_paths(frame) == f'  File "{shown}", line 3, in run\n    go()\n'
