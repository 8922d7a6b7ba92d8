"""The check: start a yard in a throw-away folder, send the sample work, wait for every outcome, stop."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.runner import StopRequest, end_leftovers, memory_bytes
from demo.sample import SampleRun, Seen
from demo.state import DemoError, StateFolder, Stopped
from demo.work import SENT, WORK
from demo.yard import DemoYard

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
    problem, memory = "", 0
    try:
        console.print(f"starting a yard in {state.root}")
        yard.start()
        console.print(f"up after {time.monotonic() - started_at:.0f} s; sending the sample work")
        found = wait_for_outcomes(yard, say, stop)
        memory = memory_bytes()
        if not all(seen.as_expected for seen in found):
            problem = "not every outcome was as expected"
    except Stopped:
        problem = "stopped before every outcome was seen"
    except DemoError as error:
        problem = str(error)
    finally:
        yard.stop()
    if left := end_leftovers():
        problem = problem or f"processes were left behind and killed: {', '.join(left)}"
    if found:
        console.print(table(found), soft_wrap=False)
        console.print(
            f"memory {memory / 1e6:.0f} MB (sum of proportional set sizes); "
            f"all in all {time.monotonic() - started_at:.0f} s"
        )
    if problem:
        console.print(f"check failed: {problem}\nthe logs are kept in {state.logs}", style="red")
        return 1
    shutil.rmtree(state.root)
    console.print("every outcome was as expected", style="green")
    return 0


def wait_for_outcomes(yard: DemoYard, say: Callable[[str], object], stop: StopRequest) -> list[Seen]:
    """Send the sample work and look until every outcome is as expected, for 90 s at most.

    Returns:
        The last observation of each row, in their order.

    Raises:
        Stopped: a signal came first.
    """
    from django.db import OperationalError, connections

    run = SampleRun(yard, say, is_over=stop.wait)
    run.start(SENT)
    found = [Seen("nothing yet", as_expected=False) for _ in WORK]
    deadline = time.monotonic() + TIMEOUT_S
    while not stop.wait(POLL_S):
        yard.restart_dead()
        # The last look is at every row again: "once" and "never" may have turned wrong since.
        is_last = all(seen.as_expected for seen in found) or time.monotonic() > deadline
        for place, work in enumerate(WORK):
            if not found[place].as_expected or (is_last and not work.passes):
                try:
                    found[place] = work.look(run.orders[work.what])
                except OperationalError as error:
                    found[place] = Seen(f"the database cannot be read: {error}", as_expected=False)
        connections.close_all()  # a part that is forked again must not share one
        if is_last:
            stop.set()  # the run's thread ends
            return found
    raise Stopped("stopped")


def table(found: list[Seen]) -> Table:
    result = Table(width=TABLE_WIDTH)
    for column in ("app", "what", "expected", "seen"):
        result.add_column(column)
    result.add_column("s", justify="right")
    result.add_column("")
    for work, seen in sorted(zip(WORK, found, strict=True), key=lambda row: row[0].app):
        mark = Text("ok", style="green") if seen.as_expected else Text("NO", style="bold red")
        seconds = "" if seen.seconds is None else f"{seen.seconds:.1f}"
        result.add_row(work.app, work.what, work.expected, seen.text, seconds, mark)
    return result
