"""``bin/demo`` without ``--check``: start the yard, send the sample work, show its progress, stop on a signal."""

from __future__ import annotations

import threading

from rich.console import Console

from demo.arguments import DEFAULT_PORT, Options
from demo.errors import Stopped
from demo.hurry import sentence
from demo.job_lines import JobLines
from demo.processes import end_leftovers
from demo.sample.journal import Journal
from demo.sample.run import SampleRun
from demo.state import StateFolder
from demo.stopping import StopRequest
from demo.text import addresses_to_open
from demo.yard import DemoYard

POLL_S = 0.25


def run(options: Options, stop: StopRequest, console: Console) -> int:
    """Run a demo until a signal stops it, and return 0.

    Raises:
        DemoError: it did not start; the parts that had started are stopped.
    """
    yard = DemoYard(
        StateFolder(options.state),
        say=console.print,
        stop=stop,
        web_port=options.port,
        first_port=DEFAULT_PORT,
        with_sample=options.sample,
        with_reload=options.reload,
    )
    try:
        console.print(f"starting a yard in {options.state}")
        console.print(sentence())
        yard.start()
        show(yard, stop, console, with_sample=options.sample)
    except Stopped:
        pass
    finally:
        if yard.is_running:
            console.print("stopping: the pools finish what they are doing; press Ctrl-C again to stop at once")
        yard.stop()
        left = end_leftovers()
        if left:
            console.print(f"killed what was left: {', '.join(left)}")
    console.print("stopped; everything is kept for the next start")
    return 0


def show(yard: DemoYard, stop: StopRequest, console: Console, *, with_sample: bool) -> None:
    """Print the addresses, send the sample work and print a line for each job until a stop is requested."""
    for name, address in addresses_to_open(yard.addresses.site, yard.state.credentials, yard.state.pools_log):
        console.print(f"  {name:<18} {address}")
    console.print(f"ready: {yard.addresses.site}")
    journal = Journal()
    threads: list[threading.Thread] = []
    if with_sample:
        sample = SampleRun(yard, console.print, is_over=stop.wait)
        journal = sample.journal
        threads = sample.start()
    others = JobLines(yard.state.pools_log, journal, console.print)
    while not stop.wait(POLL_S):
        yard.restart_dead()
        others.read()
    for thread in threads:
        thread.join(timeout=2.0)
