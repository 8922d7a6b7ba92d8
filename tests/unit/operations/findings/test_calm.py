"""The headline stays for 10 s unless a worse finding or its cause comes; numbers move, what has ended goes at once."""

from __future__ import annotations

from dataclasses import replace

from switchyard.operations.findings.finding import Button, Finding, Ranked, ranked
from switchyard.operations.overview import KEPT_MS, SETTLES_MS, Headline, keep

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


class Page:
    """The overview as it is read again and again."""

    def __init__(self) -> None:
        self.kept: Headline | None = None

    def said(self, after_ms: int, *found: Finding) -> Ranked:
        """Return what leads at a time."""
        said, self.kept = keep(ranked(found), self.kept, NOW + after_ms)
        assert len(said) == len(found)
        return said[0]


def test_another_finding_of_the_same_level_waits_for_ten_seconds() -> None:
    page = Page()
    page.said(0, PARKED)

    assert page.said(KEPT_MS - 1, PARKED, FAILING).finding == PARKED
    assert page.said(KEPT_MS, PARKED, FAILING).finding == FAILING


def test_a_worse_finding_and_the_cause_of_the_one_that_leads_come_at_once() -> None:
    locked = Finding("database", "locked", "warning", "the database is locked")
    quieted = Finding("pools", "quieted", "error", "hooks starts nothing", subject="hooks")
    page, other = Page(), Page()
    page.said(0, LATE)
    other.said(0, LATE)

    assert page.said(1_000, LATE, quieted).finding == quieted
    assert other.said(1_000, LATE, locked).finding == locked


def test_what_is_past_waits_for_nothing() -> None:
    page, past = Page(), replace(FAILING, code="failed_before")
    page.said(0, past)

    assert page.said(1_000, PARKED, past).finding == PARKED


def test_what_has_ended_leads_no_longer() -> None:
    page = Page()
    page.said(0, LATE, PARKED)

    assert page.said(1_000, PARKED).finding == PARKED


def test_words_and_button_stay_while_they_come_and_go_and_numbers_move() -> None:
    page = Page()
    page.said(0, LATE)

    assert page.said(SETTLES_MS, CHANGED).finding == LATE
    assert page.said(SETTLES_MS + 5_000, late("1 min 02 s")).finding == late("1 min 02 s")
    assert page.said(SETTLES_MS + 14_999, CHANGED).finding == late("1 min 02 s")
    assert page.said(SETTLES_MS + 15_000, CHANGED).finding == CHANGED


def test_the_first_readings_of_a_finding_and_a_worse_one_are_said_as_they_are() -> None:
    page = Page()
    page.said(0, LATE)
    worse = replace(CHANGED, severity="error")

    assert page.said(SETTLES_MS - 1, CHANGED).finding == CHANGED
    assert page.said(SETTLES_MS + 1_000, late("9 s")).finding == CHANGED
    assert page.said(SETTLES_MS + 2_000, worse).finding == worse


def test_failures_of_two_actors_on_one_queue_are_two_findings() -> None:
    other = replace(FAILING, seen="all of mail's jobs fail: 8 of 8", actor="mail", factor=-1.0)
    page = Page()
    page.said(0, FAILING, other)

    assert page.said(1_000, FAILING, replace(other, factor=9.0)).finding == FAILING
    assert page.said(SETTLES_MS, other).finding == other
