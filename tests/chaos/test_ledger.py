"""The account of a history: each counter counts what it says, shown on histories that were made up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.ledger import Entry, Ledger, account

GOOD = ["attempted a", "accepted a", "started a", "completed a"]


def history(*lines: str) -> list[Entry]:
    """Return the entries of lines like ``accepted a``."""
    return [Entry(*line.split(), pid=1, at_s=float(number)) for number, line in enumerate(lines)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("lines", "counter", "jobs"),
    [
        (["attempted b", "refused b"], "attempted", ("a", "b")),
        (["attempted b", "accepted b", "completed b"], "accepted", ("a", "b")),
        (["attempted b", "accepted b", "completed b"], "completed", ("a", "b")),
        (["attempted b", "accepted b", "started b"], "lost", ("b",)),
        (["attempted b", "accepted b", "started b", "buried b"], "dead", ("b",)),
        (["completed a", "completed a"], "duplicated", ("a", "a")),
        (["started b", "completed b"], "unexpected", ("b",)),
        (["attempted b", "refused b", "completed b"], "recovered", ("b",)),
    ],
)
def test_a_forged_history_moves_its_counter(lines: list[str], counter: str, jobs: tuple[str, ...]) -> None:
    found = account(history(*GOOD, *lines))

    assert getattr(found, counter) == jobs


def test_an_honest_history_has_nothing_to_complain_of() -> None:
    found = account(history("attempted b", *GOOD, "refused b", "started c", "attempted c"))

    assert (found.dead, found.lost, found.duplicated, found.unexpected, found.recovered) == ((), (), (), (), ())


def test_a_dead_letter_is_not_lost_and_what_completed_is_not_dead() -> None:
    found = account(history("attempted b", "accepted b", "started b", "buried b", *GOOD, "buried a"))

    assert (found.dead, found.lost) == (("b",), ())


def test_a_start_that_came_to_nothing_is_no_duplicate() -> None:
    assert account(history("started a", *GOOD)).duplicated == ()


def test_what_completed_before_its_enqueue_was_answered_is_not_unexpected() -> None:
    found = account(history("attempted a", "completed a", "accepted a"))

    assert (found.unexpected, found.recovered) == ((), ())


def test_lines_of_processes_that_are_killed_are_whole(tmp_path: Path) -> None:
    program = (
        "import sys; from tests.chaos.ledger import Ledger; ledger = Ledger(sys.argv[1]); number = 0\n"
        "while True: number += 1; ledger.note('completed', f'{sys.argv[2]}-{number}')"
    )
    ledger = Ledger(tmp_path / "ledger")
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(ledger.path), name], cwd=Path(__file__).parents[2])
        for name in ("x", "y")
    ]
    for writer in writers:
        while not any(job.startswith(writer.args[-1]) for job in ledger.jobs("completed")):  # type: ignore[index]
            assert writer.poll() is None
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()

    found = ledger.account()

    assert found.duplicated == ()
    assert {entry.pid for entry in ledger.entries()} == {writer.pid for writer in writers}
    ledger.close()


@pytest.mark.parametrize(("phase", "job"), [("eaten", "a"), ("started", ""), ("started", "a b"), ("started", "a\nb")])
def test_what_would_break_the_ledger_is_refused(tmp_path: Path, phase: str, job: str) -> None:
    ledger = Ledger(tmp_path / "ledger")

    with pytest.raises(ValueError, match="one word"):
        ledger.note(phase, job)
    ledger.close()
