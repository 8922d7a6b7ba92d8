from __future__ import annotations

import pytest
from django.conf import settings

from switchyard.dead_letters.presentation import marked, own_frame, short_paths

INSIDE = f"{settings.BASE_DIR}/apps/shop/months.py"
PACKAGE = f"{settings.BASE_DIR}/.venv/lib/python3.11/site-packages/dramatiq/worker.py"
TRACEBACK = (
    "Traceback (most recent call last):\n"
    f'  File "{PACKAGE}", line 560, in process_message\n    res = actor(*message.args)\n'
    f'  File "{INSIDE}", line 29, in bounds\n    first = first_day(month)\n'
    f'  File "{INSIDE}", line 19, in first_day\n    raise ValueError(month)\n'
    f'  File "{PACKAGE}", line 9, in last\n    go()\n'
    "ValueError: no month\n"
)


def test_innermost_frame_of_the_project_is_marked_with_its_source_line() -> None:
    shown = marked(TRACEBACK)

    assert [line for line, is_own in shown if is_own] == [
        '  File "apps/shop/months.py", line 19, in first_day',
        "    raise ValueError(month)",
    ]
    assert len(shown) == len(TRACEBACK.splitlines())
    assert own_frame(TRACEBACK) == "apps/shop/months.py:19 first_day"


def test_traceback_without_a_frame_of_the_project_marks_nothing() -> None:
    foreign = f'Traceback\n  File "{PACKAGE}", line 9, in last\n    go()\nKeyError: 1\n'

    assert not any(is_own for _, is_own in marked(foreign))
    assert own_frame(foreign) == own_frame("") == ""


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
