"""The kept verdict: read once for pages that follow one another, and never shown when it is old."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from switchyard.frame.views import OLD_S, PAGE_S, VerdictStrip
from switchyard.operations.overview import Verdict
from tests.waiting import wait_for


@dataclass
class Yard:
    """Counts how often it is read; a read can be held up."""

    reads: int = 0
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.may_end = threading.Event()
        self.may_end.set()

    def overview(self) -> SimpleNamespace:
        self.reads += 1
        verdict = Verdict("ok", "Healthy", f"Read {self.reads}.")
        assert self.may_end.wait(30)
        return SimpleNamespace(verdict=verdict, at=datetime.now(UTC), away=False, quarantined=0)


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    found = Yard()
    monkeypatch.setattr("switchyard.operations.overview.overview", found.overview)
    return found


def test_it_is_read_again_when_it_is_older_than_asked(yard: Yard) -> None:
    kept = VerdictStrip(lambda: yard.now_s)

    assert kept.verdict(PAGE_S) is kept.verdict(PAGE_S)
    yard.now_s += PAGE_S

    assert kept.verdict(PAGE_S).verdict.sentence == "Read 2."
    assert kept.verdict(0.0).verdict.sentence == "Read 3."


@pytest.mark.parametrize(("age_s", "waits"), [(OLD_S - 1, False), (OLD_S + 1, True)])
def test_while_it_is_read_the_one_before_is_shown_unless_it_is_old(yard: Yard, age_s: float, waits: bool) -> None:
    kept = VerdictStrip(lambda: yard.now_s)
    kept.verdict()
    yard.now_s += age_s
    yard.may_end.clear()
    seen: list[str] = []
    readers = [
        threading.Thread(target=lambda: seen.append(kept.verdict().verdict.sentence), daemon=True) for _ in range(2)
    ]

    readers[0].start()
    wait_for(lambda: yard.reads == 2)
    readers[1].start()
    if not waits:
        wait_for(lambda: seen == ["Read 1."])
    yard.may_end.set()
    for reader in readers:
        reader.join(30)

    assert seen == (["Read 2.", "Read 2."] if waits else ["Read 1.", "Read 2."])
    assert yard.reads == 2
