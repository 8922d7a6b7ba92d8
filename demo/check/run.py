"""The check: start a yard in a throw-away folder, send the sample work, wait for every outcome, stop."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.check.evidence import Evidence, Seen
from demo.check.expectations import EXPECTATIONS, Expectation
from demo.errors import DemoError, Stopped
from demo.hurry import sentence
from demo.processes import end_leftovers
from demo.sample.run import SampleRun
from demo.state import StateFolder
from demo.stopping import StopRequest
from demo.yard import DemoYard
from switchyard.console.formatting import duration, size

TIMEOUT_S = 90.0
POLL_S = 0.5
TABLE_WIDTH = 130


def check(stop: StopRequest, console: Console) -> int:
    """Run the check and return the exit code: 0 when every outcome is as expected, else 1."""
    started_at = time.monotonic()
    state = StateFolder(Path(tempfile.mkdtemp(prefix="switchyard-check-")))

    def say(line: str) -> None:
        console.print(f"  {line}")

    yard = DemoYard(state, say=say, stop=stop)
    found: list[Seen] = []
    problem = ""
    memory_bytes = 0
    try:
        console.print(f"starting a yard in {state.root}")
        console.print(sentence())
        yard.start()
        console.print(f"up after {duration((time.monotonic() - started_at) * 1_000)}; sending the sample work")
        found = wait_for_outcomes(yard, say, stop)
        memory_bytes = yard.memory_bytes
    except Stopped:
        problem = "stopped before every outcome was seen"
    except DemoError as error:
        problem = str(error)
    finally:
        yard.stop()
    left = end_leftovers()
    if left:
        problem = problem or f"processes were left behind and killed: {', '.join(left)}"
    good = not problem and bool(found) and all(seen.as_expected for seen in found)
    if found:
        console.print(table(found), soft_wrap=False)
        console.print(
            f"memory {size(memory_bytes)} (sum of proportional set sizes); "
            f"all in all {duration((time.monotonic() - started_at) * 1_000)}"
        )
    if good:
        shutil.rmtree(state.root)
        console.print("every outcome was as expected", style="green")
        return 0
    said = problem or "not every outcome was as expected"
    console.print(f"check failed: {said}\nthe logs are kept in {state.logs}", style="red")
    return 1


def wait_for_outcomes(yard: DemoYard, say: Callable[[str], object], stop: StopRequest) -> list[Seen]:
    """Send the sample work and poll until every outcome is as expected, for 90 s at most.

    Returns:
        The last observation of each expectation, in their order.
    """
    run = SampleRun(yard, say, is_over=stop.wait)
    run.start()
    files: dict[str, bytes] = {}
    found = [Seen("nothing yet", as_expected=False) for _ in EXPECTATIONS]
    deadline = time.monotonic() + TIMEOUT_S
    while not stop.is_stopping():
        yard.restart_dead()
        evidence = Evidence(run.journal, run.answers, run.client, yard.state, yard.addresses.receiver, files)
        # The last poll checks every row again: "once" and "never" may have turned wrong since.
        is_last_look = all(seen.as_expected for seen in found) or time.monotonic() > deadline
        for place, expectation in enumerate(EXPECTATIONS):
            if not found[place].as_expected or (is_last_look and not expectation.passes):
                found[place] = _look(expectation, evidence)
        if is_last_look:
            break
        stop.wait(POLL_S)
    stop.request()  # the run's threads end
    return found


def table(found: list[Seen]) -> Table:
    """Return the table of expected and seen outcomes."""
    result = Table(width=TABLE_WIDTH)
    for column in ("app", "what", "expected", "seen"):
        result.add_column(column)
    result.add_column("s", justify="right")
    result.add_column("")
    for expectation, seen in zip(EXPECTATIONS, found, strict=True):
        result.add_row(
            expectation.app,
            expectation.what,
            expectation.expected,
            seen.text,
            "" if seen.seconds is None else f"{seen.seconds:.1f}",
            Text("ok", style="green") if seen.as_expected else Text("NO", style="bold red"),
        )
    return result


def _look(expectation: Expectation, evidence: Evidence) -> Seen:
    try:
        return expectation.look(evidence)
    except sqlite3.OperationalError as error:
        return Seen(f"the database cannot be read: {error}", as_expected=False)
