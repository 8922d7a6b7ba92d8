"""Findings that are kept between two readers of the overview, and the headline that stays for 10 s; their words."""

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.test import override_settings

from switchyard.broker.errors import CHECK_THE_ADDRESS
from switchyard.conf import SwitchyardSettings, read
from switchyard.operations.findings import examine
from switchyard.operations.findings.database import REFUSALS
from switchyard.operations.findings.examine import SELDOM_S, SOON_S, KeptFindings
from switchyard.operations.findings.finding import Button, Finding, FindingGroup, ranked
from switchyard.operations.overview import KEPT_MS, SETTLES_MS, Headline, keep
from tests.waiting import wait_for

# Other tests leave the examination out.
FINDINGS = KeptFindings.findings
SOON, SELDOM = FindingGroup("queues"), FindingGroup("disk")
CHANGE = "CONFIG SET appendonly yes"
COMMAND = f"valkey-cli {CHANGE}"
ADMIN = "--user ADMIN --askpass"
HOST = read({"TOPOLOGY": "project.topology.YARD", "BROKER_URL": "redis://v:6390/0"}, {}, debug=True)


class Looks:
    """Two checks that count their runs, and wait while they are held up."""

    def __init__(self) -> None:
        self.runs = {SOON.name: 0, SELDOM.name: 0}
        self.now_s = 1_000.0
        self.may_end = threading.Event()
        self.may_end.set()

    def checks(self) -> tuple[examine.Check, ...]:
        return (
            examine.Check(SOON, lambda: self._look(SOON), SOON_S),
            examine.Check(SELDOM, lambda: self._look(SELDOM), SELDOM_S),
        )

    def _look(self, group: FindingGroup) -> Iterator[Finding]:
        assert self.may_end.wait(30)
        self.runs[group.name] += 1
        yield group.ok(f"run {self.runs[group.name]}")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looks]:
    found = Looks()
    monkeypatch.setattr(examine, "checks", found.checks)
    yield found
    found.may_end.set()


def seen(kept: KeptFindings, wait_s: float = 10.0) -> list[str] | None:
    found = FINDINGS(kept, wait_s)
    return None if found is None else [one.seen for one in found]


def test_each_check_is_repeated_once_it_is_due_and_nobody_pays_for_it_unasked(looks):
    kept = KeptFindings(lambda: looks.now_s)

    assert seen(kept) == seen(kept) == ["run 1", "run 1"]
    looks.now_s += SOON_S
    assert seen(kept) == ["run 2", "run 1"]
    looks.now_s += SELDOM_S
    assert seen(kept) == ["run 3", "run 2"]


def test_a_check_that_takes_long_leaves_what_was_found_before_but_not_what_was_long_ago(looks, monkeypatch):
    kept = KeptFindings(lambda: looks.now_s)
    seen(kept)
    looks.now_s += SOON_S
    looks.may_end.clear()

    assert seen(kept, 0.01) == ["run 1", "run 1"]
    looks.now_s += examine.FORGOTTEN_S + 1
    monkeypatch.setattr(examine, "DEADLINE_S", 0.01)
    assert seen(kept) is None


def test_the_first_reader_after_a_long_time_waits_for_the_examination(looks):
    kept = KeptFindings(lambda: looks.now_s)
    seen(kept)
    looks.now_s += 3_600

    assert seen(kept, 0.0) == ["run 2", "run 2"]


def test_a_check_that_hangs_for_hours_holds_two_threads(looks, monkeypatch):
    monkeypatch.setattr(examine, "DEADLINE_S", 0.01)
    monkeypatch.setattr(examine, "LOOK_AFTER_S", 0.01)
    asked = []

    def look() -> Iterator[Finding]:
        asked.append(1)
        return looks._look(SOON)

    check = examine.KeptCheck(examine.Check(SOON, look, SOON_S), lambda: looks.now_s)
    looks.may_end.clear()
    assert check.ask() is None

    for _ in range(10):
        looks.now_s += examine.ABANDONED_S + 1
        [found] = check.ask() or []
        assert found.code == "hangs"
    assert len(asked) == 2

    looks.may_end.set()
    wait_for(lambda: looks.runs[SOON.name] == 2)
    monkeypatch.setattr(examine, "DEADLINE_S", 10.0)
    assert ([one.code for one in check.ask() or []], len(asked)) == (["ok"], 2)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Command lines of the doctor's host."""
    found = {"redis-cli", "valkey-cli"}
    monkeypatch.setattr(examine.shutil, "which", lambda name: name if name in found else None)
    return found


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/v.sock", "valkey-cli -s /run/v.sock"),
        ("redis://:secret@v:6379/0", 'valkey-cli -u "$SWITCHYARD_BROKER_URL"'),
        ("redis://room:secret@v/0", f"valkey-cli -h v -p 6379 {ADMIN}"),
        ("rediss://:secret@v:6380/0", "valkey-cli -h v -p 6380 --tls --askpass"),
        (
            "rediss://room:secret@v:6380/0?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/c.key",
            f"valkey-cli -h v -p 6380 --tls --cacert /ca.pem --cert /c.pem --key /c.key {ADMIN}",
        ),
    ],
)
def test_a_command_names_server_tls_and_a_user_that_may(url, expected, monkeypatch):
    own = SimpleNamespace(broker_url=url, server_variable="SWITCHYARD_BROKER_URL")
    monkeypatch.setattr(examine, "switchyard_settings", lambda: own)

    found = examine.copyable(Finding("broker", "stalls", "warning", "it blocks", next=COMMAND))

    assert found.next == f"{expected} {CHANGE}"


@pytest.mark.usefixtures("installed")
def test_a_command_names_the_host_of_an_address_that_no_shell_has(monkeypatch):
    monkeypatch.setattr(examine, "switchyard_settings", lambda: HOST)

    found = examine.copyable(Finding("broker", "stalls", "warning", "it blocks", next=COMMAND))

    assert "$" not in found.next and " -h v -p 6390" in found.next


@pytest.mark.parametrize(
    "text", [refusal.next for refusal in REFUSALS] + ["point SWITCHYARD_BROKER_URL at the primary", CHECK_THE_ADDRESS]
)
def test_a_host_project_is_not_told_of_variables_that_it_does_not_read(text, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delitem(sys.modules, "dj_database_url", raising=False)
    with override_settings(SWITCHYARD=HOST):
        found = FindingGroup("database").finding("error", "away", text, text, text, then=text)

    assert found.seen == found.cause == found.next == found.then
    assert "DATABASE_" not in found.next and "SWITCHYARD_" not in found.next


def test_this_project_is_told_of_its_variables():
    own: SwitchyardSettings = replace(settings.SWITCHYARD, broker_named_by="SWITCHYARD_BROKER_URL")
    text = "Set DATABASE_BOUNCED=1, and check SWITCHYARD_BROKER_URL"
    with override_settings(SWITCHYARD=own):
        assert FindingGroup("database").finding("error", "away", text, text, text).next == text


NOW = 1_900_000_000_000
MOVE = Button("Move 5 waiting sync to another queue…", "switchyard-queue-relocate", "mail")
SHOW = Button("Show who holds the 4 slots of mail", "switchyard-queue", "mail")


def late(wait: str = "5 s", **changes: object) -> Finding:
    seen = f"mail is 5 × behind its promise, because 4 × sync hold all 4 slots, the longest for {wait}"
    found = Finding("queues", "late", "warning", seen, subject="mail", button=MOVE, word="Blocked")
    return replace(found, **changes)  # type: ignore[arg-type]


LATE = late()
CHANGED = late(seen="mail is 5 × behind its promise, because all 4 slots are busy", button=SHOW, word="")
FAILING = Finding("actors", "failing", "warning", "all of sync's jobs fail: 9 of 9", subject="mail", actor="sync")
PARKED = Finding("queues", "parked", "warning", "default: 1 message waits", subject="default")
LOCKED = Finding("database", "locked", "warning", "the database is locked")
QUIETED = Finding("pools", "quieted", "error", "hooks starts nothing", subject="hooks")
PAST = replace(FAILING, code="failed_before")
OTHER = replace(FAILING, seen="all of mail's jobs fail: 8 of 8", actor="mail", factor=-1.0)
LATER, WORSE = late("1 min 02 s"), replace(CHANGED, severity="error")
# After how many ms which findings are present, and which leads.
Story = tuple[tuple[int, list[Finding], Finding], ...]
STORIES: dict[str, Story] = {
    "another finding of the same level waits for ten seconds": (
        (0, [PARKED], PARKED), (KEPT_MS - 1, [PARKED, FAILING], PARKED), (KEPT_MS, [PARKED, FAILING], FAILING),
    ),
    "a worse finding comes at once": ((0, [LATE], LATE), (1_000, [LATE, QUIETED], QUIETED)),
    "the cause of the one that leads comes at once": ((0, [LATE], LATE), (1_000, [LATE, LOCKED], LOCKED)),
    "what is past waits for nothing": ((0, [PAST], PAST), (1_000, [PARKED, PAST], PARKED)),
    "what has ended leads no longer": ((0, [LATE, PARKED], LATE), (1_000, [PARKED], PARKED)),
    "words and button stay while they come and go and numbers move": (
        (0, [LATE], LATE), (SETTLES_MS, [CHANGED], LATE), (SETTLES_MS + 5_000, [LATER], LATER),
        (SETTLES_MS + 14_999, [CHANGED], LATER), (SETTLES_MS + 15_000, [CHANGED], CHANGED),
    ),
    "the first readings of a finding and a worse one are said as they are": (
        (0, [LATE], LATE), (SETTLES_MS - 1, [CHANGED], CHANGED), (SETTLES_MS + 1_000, [late("9 s")], CHANGED),
        (SETTLES_MS + 2_000, [WORSE], WORSE),
    ),
    "failures of two actors on one queue are two findings": (
        (0, [FAILING, OTHER], FAILING), (1_000, [FAILING, replace(OTHER, factor=9.0)], FAILING),
        (SETTLES_MS, [OTHER], OTHER),
    ),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_the_headline_is_calm(story):
    kept: Headline | None = None
    for after_ms, found, leads in story:
        said, kept = keep(ranked(found), kept, NOW + after_ms)
        assert (len(said), said[0].finding) == (len(found), leads)
