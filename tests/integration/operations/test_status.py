"""``status``: one frame, and ``--watch`` in a real terminal, on a real yard: sizes, an absent broker, ways to leave."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from switchyard.operations.findings.finding import Finding
from tests.chaos.server import ServerUnderTest
from tests.factories.commands import end_of
from tests.factories.pages import text_of
from tests.integration.operations.conftest import broker_away as broker_away
from tests.integration.operations.conftest import slow_pool as slow_pool
from tests.integration.operations.conftest import watcher as watcher
from tests.integration.operations.test_overview import LIVE
from tests.terminal import Terminal
from tests.verdicts.watched_yard import ROOT, WatchedYard
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(600)
SHOWN_CURSOR, FIRST_SCREEN = "\x1b[?25h", "\x1b[?1049l"
Open = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedYard]:
    """Four pools and a scheduler, without a history writer."""
    folder = tmp_path_factory.mktemp("status")
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
def watch(yard: WatchedYard) -> Open:
    """Open ``manage.py switchyard status --watch`` in a terminal."""

    def open_terminal(size: tuple[int, int] = (60, 120), **environment: str) -> Terminal:
        known = {
            name: value for name, value in yard.environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        command = [sys.executable, str(ROOT / "manage.py"), "status", "--watch"]
        return Terminal(command, environment={**known, "TERM": "xterm", **environment}, size=size, cwd=ROOT)

    return open_terminal


def test_the_overview_is_drawn_again_in_any_size(yard, watch):
    with watch() as terminal:
        first = terminal.shows("Recent alerts", 60)
        yard.send("export_invoices", "default", 15_000, count=2)
        terminal.shows(r"export_invoices +default ")
        terminal.shows(r"default +\S.* 2/8")
        terminal.resize(24, 60)
        narrow = terminal.shows(r"queue +state +oldest +waiting +busy/slots +dead\n")
        terminal.resize(60, 140)
        terminal.shows(r"dead +promise +detail")
        os.kill(terminal.process.pid, signal.SIGINT)

        assert terminal.ends() == 0
    assert "Pools  4 of 4 up, 20 slots" in first
    assert max(map(len, narrow.splitlines())) <= 60


def test_the_broker_goes_away_and_comes_back(yard, watch):
    with watch() as terminal:
        terminal.shows("Pools  4 of 4 up", 60)
        yard.server.kill()
        away = terminal.shows("Broker away")
        yard.server.restart()
        terminal.shows("Pools  4 of 4 up", 60)

        words = " ".join(away.split())
        assert "No job can be sent or seen from here" in words and "manage.py switchyard broker" in words


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGTERM, 128 + signal.SIGTERM),
        pytest.param(signal.SIGHUP, 128 + signal.SIGHUP, marks=pytest.mark.long),
        (signal.SIGINT, 0),
    ],
)
def test_a_signal_restores_the_terminal(yard, watch, sent, code):
    with watch() as terminal:
        terminal.shows("The yard", 60)
        assert FIRST_SCREEN not in terminal.raw
        os.kill(terminal.process.pid, sent)

        assert terminal.ends() == code and terminal.restored
        wait_for(lambda: FIRST_SCREEN in terminal.raw and SHOWN_CURSOR in terminal.raw, 10, what="the first screen")
        assert "Traceback" not in terminal.raw


def test_a_terminal_that_cannot_move_its_cursor_is_refused_with_what_to_write(yard, watch):
    with watch(TERM="dumb") as terminal:
        assert terminal.ends(60) == 1
        wait_for(lambda: re.search("leave it out for one\\s+frame", terminal.raw), 10, what="the remedy")


def joined(text: str) -> str:
    """Return a text without spaces and marks of code, which pages and terminals set differently."""
    return "".join(text.replace("`", "").split())


@pytest.mark.django_db
def test_it_says_what_the_page_says(facilities, watcher, slow_pool):
    page = text_of(watcher.get(LIVE).content.decode())
    code, shown = end_of("status")

    found = json.loads(end_of("status", "--json")[1])
    assert code == 1 == found["exit_code"]
    for sentence in (found["verdict"]["sentence"], found["verdict"]["then"], *found["also"]):
        assert joined(sentence) in joined(shown)
        assert joined(sentence) in joined(page)
    assert joined(found["verdict"]["button"]) in joined(page)
    assert joined(found["verdict"]["button"]) in joined(shown)
    for pool in found["pools"]:
        assert pool["pool"] in shown


@pytest.mark.django_db
def test_its_exit_code_is_the_doctors(facilities, monkeypatch):
    monkeypatch.setattr(
        "switchyard.operations.findings.examine.KeptFindings.findings",
        lambda self, wait_s=0.3: [Finding("database", "locked", "error", "the database is locked, by pid 4711")],
    )

    code, shown = end_of("status")

    assert code == 2 and shown.startswith("Database locked  The database is locked, by pid 4711.")
