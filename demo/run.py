"""``bin/demo`` without ``--check``: start the yard, send the sample work, show its progress, stop on a signal."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.live import Live

from demo.arguments import DEFAULT_PORT, Options
from demo.client import Client
from demo.errors import Stopped
from demo.hurry import sentence
from demo.processes import end_leftovers
from demo.sample.journal import Journal
from demo.sample.run import SampleRun
from demo.state import StateFolder
from demo.stopping import StopRequest
from demo.view import screen
from demo.view.feed import Feed
from demo.view.snapshot import Observer
from demo.view.text import addresses_to_open, status_line
from demo.yard import DemoYard

POLL_S = 0.25
LINE_EVERY_S = 10.0
QUIET_LINE_EVERY_S = 60.0


def run(options: Options, stop: StopRequest, console: Console) -> int:
    """Run a demo until a signal stops it, and return 0.

    Raises:
        DemoError: it did not start; the parts that had started are stopped.
    """
    feed = Feed(print_line=lambda text: console.print(text))
    yard = DemoYard(
        StateFolder(options.state),
        feed=feed,
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
        show(yard, feed, stop, console, with_sample=options.sample)
    except Stopped:
        pass
    finally:
        feed.print_line = lambda text: console.print(text)
        if yard.is_running:
            console.print("stopping: the pools finish what they are doing; press Ctrl-C again to stop at once")
        yard.stop()
        left = end_leftovers()
        if left:
            console.print(f"killed what was left: {', '.join(left)}")
    console.print("stopped; everything is kept for the next start")
    return 0


def show(yard: DemoYard, feed: Feed, stop: StopRequest, console: Console, *, with_sample: bool) -> None:
    """Print the addresses, send the sample work and show progress until a stop is requested."""
    addresses = addresses_to_open(yard.addresses.site, yard.state.credentials, yard.state.pools_log)
    for name, address in addresses:
        console.print(f"  {name:<18} {address}")
    console.print(f"ready: {yard.addresses.site}")
    journal = Journal()
    threads: list[threading.Thread] = []
    if with_sample:
        sample = SampleRun(yard, feed, is_over=stop.wait)
        journal = sample.journal
        threads += sample.start()
    observer = Observer(yard, Client(yard.addresses.site, yard.token), journal, feed)
    threads.append(threading.Thread(target=observer.watch, args=(stop.wait,), name="observer", daemon=True))
    threads[-1].start()
    if console.is_terminal and sys.stdout.isatty():
        _live(yard, feed, observer, stop, console, addresses)
    else:
        _lines(yard, observer, stop, console)
    for thread in threads:
        thread.join(timeout=2.0)


def _live(
    yard: DemoYard,
    feed: Feed,
    observer: Observer,
    stop: StopRequest,
    console: Console,
    addresses: list[tuple[str, str]],
) -> None:
    feed.print_line = None
    with Live(console=Console(), screen=False, auto_refresh=False, vertical_overflow="crop") as live:
        while not stop.wait(POLL_S):
            yard.restart_dead()
            live.update(screen.render(observer.snapshot(), addresses, height=live.console.height), refresh=True)


def _lines(yard: DemoYard, observer: Observer, stop: StopRequest, console: Console) -> None:
    next_at = time.monotonic() + LINE_EVERY_S
    while not stop.wait(POLL_S):
        yard.restart_dead()
        if time.monotonic() < next_at:
            continue
        seen = observer.snapshot()
        console.print(status_line(seen))
        is_busy = any(not job.has_ended for job in seen.jobs)
        next_at = time.monotonic() + (LINE_EVERY_S if is_busy else QUIET_LINE_EVERY_S)
