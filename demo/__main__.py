"""``python -m demo``: see ``bin/demo --help``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console

from demo.addresses import RETRY_SPEED
from demo.check import check
from demo.job_lines import JobLines
from demo.runner import StopRequest, end_leftovers
from demo.sample import SampleRun
from demo.state import DemoError, StateFolder, Stopped
from demo.work import SENT
from demo.yard import USERNAME, DemoYard
from project.config import BASE_DIR
from switchyard.conf import shortened

DEFAULT_PORT = 8000
POLL_S = 0.25
FILE_WIDTH = 140
DESCRIPTION = """\
Starts the whole yard on this machine: Valkey, worker pools, scheduler, web, a mailbox and a webhook receiver;
sends real work through it and shows its progress. Ctrl-C stops it: it drains, and keeps its data."""
# The C library reads these when a process starts: freed memory stays in two arenas, not in one for each thread, and
# what is larger than 64 KiB goes back to the system.
MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def main(argv: Sequence[str]) -> int:
    """Run the demo or its check and return the exit code."""
    options = parse(argv)
    # Database, mails and logs hold secrets, and other users may be able to read the state folder.
    os.umask(0o077)
    stop = StopRequest()
    stop.listen()
    console = line_console(sys.stdout)
    try:
        console.print(f"retries come {RETRY_SPEED:,} times as fast as in production")
        return check(stop, console) if options.check else run(options, stop, console)
    except DemoError as error:
        line_console(sys.stderr).print(f"demo: {error}")
        return 1


def run(options: argparse.Namespace, stop: StopRequest, console: Console) -> int:
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
        with_reload=options.reload,
    )
    try:
        console.print(f"starting a yard in {options.state}")
        yard.start()
        show(yard, stop, console, with_sample=not options.no_sample)
    except Stopped:
        pass
    finally:
        if yard.is_running:
            console.print("stopping: the pools finish what they are doing; press Ctrl-C again to stop at once")
        yard.stop()
        if left := end_leftovers():
            console.print(f"killed what was left: {', '.join(left)}")
    console.print("stopped; everything is kept for the next start")
    return 0


def show(yard: DemoYard, stop: StopRequest, console: Console, *, with_sample: bool) -> None:
    """Print the addresses, send the sample work and print a line for each job until a stop is requested."""
    site, state = yard.addresses.site, yard.state
    log = state.logs / "pools.log"
    for name, address in (
        ("Operations room", f"{site}   user {USERNAME}, password in {shortened(state.credentials)}"),
        ("Admin", f"{site}admin/"),
        ("Mailbox", f"{site}admin/mail/mailbox/"),
        ("API and its docs", f"{site}api/v1/docs"),
        ("Metrics", f"{site}metrics"),
        ("Commands", f". {shortened(state.environment)}; .venv/bin/python manage.py switchyard doctor"),
        ("Log of the jobs", shortened(log)),
    ):
        console.print(f"  {name:<18} {address}")
    console.print(f"ready: {site}")
    sample = SampleRun(yard, console.print, is_over=stop.wait)
    if with_sample:
        sample.start(SENT)
    others = JobLines(log, console.print)
    while not stop.wait(POLL_S):
        yard.restart_dead()
        others.read(job.job_id for job in sample.jobs())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; print usage and exit with 2 when it is invalid."""
    parser = argparse.ArgumentParser(
        prog="bin/demo", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=_port, help=f"web port (default {DEFAULT_PORT}, or the next that is free)")
    parser.add_argument("--state", type=Path, metavar="DIR", help="folder that keeps everything (default var/)")
    parser.add_argument("--no-sample", action="store_true", help="start without sending the sample work")
    parser.add_argument(
        "--reload", action="store_true", help="drain the pools and start them again when a Python file changes"
    )
    parser.add_argument(
        "--check", action="store_true", help="send the sample work in a throw-away folder, verify every outcome, stop"
    )
    found = parser.parse_args(argv)
    if found.check and (found.state or found.port or found.no_sample or found.reload):
        parser.error("--check uses its own folder and ports and needs the sample work; give it alone")
    found.state = (found.state or BASE_DIR / "var").resolve()
    return found


def line_console(stream: TextIO) -> Console:
    """Return a console that prints lines unchanged: no markup, highlighting or wrapping; 140 wide into a file."""
    width = None if stream.isatty() else FILE_WIDTH
    return Console(file=stream, width=width, soft_wrap=True, markup=False, highlight=False)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    if not MALLOC.keys() <= os.environ.keys():
        python = [sys.executable, "-m", "demo", *sys.argv[1:]]
        os.execve(sys.executable, python, os.environ | MALLOC | {"PYTHONUNBUFFERED": "1"})  # noqa: S606
    sys.exit(main(sys.argv[1:]))
