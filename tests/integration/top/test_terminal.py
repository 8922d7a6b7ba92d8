"""``manage.py switchyard top`` in a terminal, on a real yard: keys, sizes, an absent broker, every way to leave."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.chaos.server import ServerUnderTest
from tests.terminal import Terminal
from tests.verdicts.watched_yard import ROOT, WatchedYard
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(600)
COLOUR = re.compile(r"\x1b\[[\d;]*3[1-3]m")

Open = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedYard]:
    """Four pools and a scheduler, without a history writer."""
    folder = tmp_path_factory.mktemp("top")
    with ServerUnderTest(folder / "server") as server:
        yard = WatchedYard(folder, server)
        try:
            yard.manage("migrate", "--verbosity=0")
            yard.launch("runscheduler", "runscheduler")
            yard.launch("runpools", "runpools", "--no-history")
            wait_for(lambda: "pools: all ready" in yard.log("runpools"), 240, what="pools ready")
            yield yard
        finally:
            yard.stop()


@pytest.fixture
def top(yard: WatchedYard) -> Open:
    """Open ``manage.py switchyard top`` in a terminal."""

    def open_terminal(*options: str, size: tuple[int, int] = (50, 120), **environment: str) -> Terminal:
        known = {
            name: value for name, value in yard.environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        command = [sys.executable, str(ROOT / "manage.py"), "top", *options]
        return Terminal(command, environment={**known, "TERM": "vt100", **environment}, size=size, cwd=ROOT)

    return open_terminal


def test_the_overview_is_live_and_keys_lead_through_the_pages(yard: WatchedYard, top: Open) -> None:
    with top(size=(60, 120)) as terminal:
        first = terminal.shows("Recent alerts", 60)
        yard.send("export_invoices", "default", 15_000, count=2)
        terminal.shows(r"export_invoices +default .* default on ")
        terminal.shows(r"default +\S.* 2/8")

        assert "Switchyard · Overview" in first and "Pools  4 of 4 up, 20 slots" in first

        for key, shown in (
            ("q", "Switchyard · Queues"),
            ("a", r"login_mail +urgent"),
            ("w", "Every pool has its workers"),
            ("j", r"running +export_invoices"),
            ("s", r"sync_rates +every 5 min"),
            ("d", "None is open"),
            ("l", "Switchyard · Alerts"),
            ("o", "The yard"),
        ):
            terminal.press("g", key)
            terminal.shows(shown)

        terminal.press("/", *"slow_rep", "\r")
        terminal.shows(r"Actors +slow_report")
        terminal.press("j", "\r")
        terminal.shows("manage.py switchyard actors show slow_report")
        terminal.press("\x1b")
        terminal.shows("Found for slow_rep")
        terminal.press("?")
        terminal.shows("No key discards, cancels or changes anything")
        terminal.press("?", "g", "q")
        terminal.shows("Switchyard · Queues")
        terminal.press("j", "j", "\r")
        terminal.shows("default: on time; start in 1 s")
        terminal.press(".")
        terminal.shows("Paused [0-9]+ s ago")
        terminal.press(".")
        terminal.shows("Live, ")
        terminal.press("q")

        assert terminal.ends() == 0 and terminal.restored
        assert "\x1b[?1049" not in terminal.raw or terminal.raw.rstrip().endswith("l")


def test_a_narrow_terminal_and_one_that_changes_its_size(yard: WatchedYard, top: Open) -> None:
    with top(size=(24, 80)) as terminal:
        narrow = terminal.shows("The yard", 60)
        assert "Quit" not in narrow and re.search(r"queue +state +oldest / promise +waiting", narrow)
        assert narrow.split("\n")[23].startswith("/ find   g page")

        terminal.resize(60, 140)
        wide = terminal.shows(r"retries .*pool, no queue")
        assert wide.split("\n")[59].startswith("/ find   g page")
        terminal.resize(8, 30)
        terminal.shows("Live, ")
        terminal.resize(3, 10)
        terminal.resize(24, 80)
        terminal.shows("The yard")
        terminal.press("\x1b")

        assert terminal.ends() == 0 and terminal.restored


def test_the_broker_goes_away_and_comes_back(yard: WatchedYard, top: Open) -> None:
    with top() as terminal:
        terminal.shows("Pools  4 of 4 up", 60)
        yard.server.kill()
        away = terminal.shows("Broker away")
        assert "No job can be sent or seen from here" in away and "manage.py switchyard broker" in away
        terminal.press("g", "q")
        terminal.shows("The broker does not answer")
        terminal.press("g", "o")
        terminal.shows("Running now")
        yard.server.restart()
        terminal.shows("Pools  4 of 4 up", 60)
        terminal.press("q")

        assert terminal.ends() == 0 and terminal.restored


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP), (signal.SIGINT, 0)]
)
def test_a_signal_restores_the_terminal(yard: WatchedYard, top: Open, sent: signal.Signals, code: int) -> None:
    with top() as terminal:
        terminal.shows("The yard", 60)
        assert not terminal.restored
        os.kill(terminal.process.pid, sent)

        assert terminal.ends() == code and terminal.restored


def test_colours_are_left_out_where_they_are_not_wanted(yard: WatchedYard, top: Open) -> None:
    with top(TERM="xterm") as terminal:
        wait_for(lambda: COLOUR.search(terminal.raw), 60, what="a colour")
        terminal.press("q")
        assert terminal.ends() == 0
    with top(TERM="xterm", NO_COLOR="1") as terminal:
        wait_for(lambda: "Pools" in terminal.raw, 60, what="the overview")
        terminal.press("q")
        assert terminal.ends() == 0 and not COLOUR.search(terminal.raw)


def test_a_terminal_that_cannot_move_its_cursor_gets_one_frame(yard: WatchedYard, top: Open) -> None:
    with top(TERM="dumb") as terminal:
        assert terminal.ends(60) in (0, 1, 2)
        assert "The yard" in terminal.raw and "\x1b[H" not in terminal.raw
