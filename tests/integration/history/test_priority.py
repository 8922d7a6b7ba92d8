"""The priority of the history writer: below other work, also below that of other sessions."""

from __future__ import annotations

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


@pytest.mark.parametrize("leads", [True, False])
def test_the_priority_of_a_session_is_lowered_by_its_leader_alone(leads: bool) -> None:
    of_a_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PROGRAM!r}], check=True)"
    command = [sys.executable, "-c", PROGRAM if leads else of_a_child]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, start_new_session=True, check=True)

    assert ran.stdout.split() == ["19", "19" if leads and AUTOGROUP.exists() else "same"]
