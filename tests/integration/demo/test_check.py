"""``bin/demo --check``: the sample work of every product has the outcome that is expected."""

from __future__ import annotations

import tempfile
from pathlib import Path

from demo.work import WORK
from tests.integration.demo.test_refusals import processes_of, run_demo


def test_every_outcome_is_as_expected_and_nothing_is_left() -> None:
    done = run_demo("--check")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok │") == len(WORK)
    state = next(line for line in done.stdout.splitlines() if "starting a yard in " in line).split()[-1]
    assert Path(state).parent == Path(tempfile.gettempdir()) and not Path(state).exists()
    assert not processes_of(Path(state))
