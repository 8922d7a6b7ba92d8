"""The demo divides the delays of its retries by one number, and says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from demo.hurry import HURRIED, RETRY_SPEED, sentence
from project.topology import YARD

ROOT = Path(__file__).resolve().parents[3]


def test_its_story_of_retries_takes_no_more_than_twenty_seconds() -> None:
    _, most_ms = YARD.queue_of("webhook").retry.span_ms()

    assert most_ms / RETRY_SPEED < 20_000
    assert sentence() == (
        "retries come 1,500 times as fast as in production: "
        "5 retries over 3 h 47 min to 7 h 36 min take 9 s to 19 s here"
    )


def test_the_yard_is_declared_as_in_production_but_for_its_speed() -> None:
    assert HURRIED.hurried(1) == YARD


def test_its_processes_use_that_yard_and_the_projects_settings_do_not() -> None:
    code = "from demo.settings import SWITCHYARD as a; from project.settings import SWITCHYARD as b; "
    code += "print(a.topology.retry_speed, b.topology.retry_speed)"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(RETRY_SPEED), "1"]
