"""The priority of the history writer: below other work, also below that of other sessions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from switchyard.history.writer import AUTOGROUP

PROGRAM = """
import os
import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from switchyard.history.writer import AUTOGROUP, yield_to_other_work

before = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
yield_to_other_work()
after = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
print(os.getpriority(os.PRIO_PROCESS, 0), "same" if before == after else after.split()[-1])
"""


@pytest.mark.parametrize(
    ("database_url", "leads", "started", "nice"),
    [
        ("postgres://ada@127.0.0.1/yard", True, 0, 19),
        ("postgres://ada@127.0.0.1/yard", False, 0, 19),
        ("", True, 0, 5),
        ("", True, 10, 10),
    ],
    ids=["postgres", "postgres, no leader", "sqlite, whose lock stops all others", "started lower than that"],
)
def test_the_priority_of_a_session_is_lowered_by_its_leader_alone(
    database_url: str, leads: bool, started: int, nice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    of_a_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PROGRAM!r}], check=True)"
    own = os.getpriority(os.PRIO_PROCESS, 0)
    lowered = ["nice", "-n", str(max(started - own, 0))]
    command = [*lowered, sys.executable, "-c", PROGRAM if leads else of_a_child]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, start_new_session=True, check=True)

    expected = str(max(nice, own))
    assert ran.stdout.split() == [expected, expected if leads and AUTOGROUP.exists() else "same"]
