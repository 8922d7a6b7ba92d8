"""Pools that do not report, do not work, or go by another clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.conf import STARTED_MS
from switchyard.operations.findings import facts, pools
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.findings.finding import Finding
from tests.integration.doctor.conftest import Configure, of

Report = Callable[..., None]


@pytest.fixture
def report(facilities: Facilities) -> Report:
    """Every pool reports that it is well, but for what a test says of ``slow``; its report may be left out."""

    def write(*, gone: bool = False, **changes: Any) -> None:
        now = now_ms()
        for pool in settings.SWITCHYARD.topology.pools:
            children = [{"pid": number, "ready": True, "busy": 0} for number in range(pool.children)]
            told: dict[str, Any] = {
                "pool": pool.name, "host": "h", "pid": 7, "kind": pool.kind, "slots": pool.total_slots, "busy": 0,
                "started_at": now - 90_000, "beat_at": now, "state": "up", "children": children,
            }  # fmt: skip
            if pool.name == "slow":
                told |= changes
            if pool.name != "slow" or not gone:
                facilities.pools.write(PoolReport(**told))

    return write


def look() -> list[Finding]:
    state = facts.read()
    return [*pools.look(state), *pools.look_at_absence(facts_of(state.state))]


def test_a_pool_that_does_not_run_is_a_warning_and_with_work_an_error(report: Report, enqueue: Any) -> None:
    report(gone=True)
    idle = of(look(), "warning")["down"]
    enqueue("slow", Entry("waits", b"{}"))

    missed = of(look(), "error")["down"]

    assert idle.next == missed.next == "manage.py switchyard runpool slow"
    assert "was killed" in idle.cause and idle.cause == missed.cause
    assert "1 job waits" in missed.seen


@pytest.mark.parametrize(
    ("changes", "severity", "code", "said"),
    [
        ({"state": "paused"}, "error", "paused", "manage.py switchyard broker"),
        ({"state": "starting", "children": []}, "error", "starting", "0 of 2 children are ready"),
        ({"children": [{"pid": 1, "ready": True}]}, "warning", "children", "has 1 of 2 children"),
    ],
)
def test_a_pool_that_does_not_work_is_told(
    report: Report, changes: dict[str, Any], severity: str, code: str, said: str
) -> None:
    report(**changes)

    found = of(look(), severity)[code]

    assert said in f"{found.seen} {found.next}"


def test_children_that_crashed_within_the_hour_are_a_warning_and_those_before_are_none(report: Report) -> None:
    report(restarts={"recycled": 400, "recycled_memory": 30, "SIGSEGV": 40}, crashes={"SIGSEGV": 2})
    assert of(look(), "warning") == {}

    report(restarts={"recycled": 400, "SIGSEGV": 41}, crashes={"SIGSEGV": 3})

    crashed = of(look(), "warning")["restarts"]
    report(crashes={"SIGKILL": 3})
    killed = of(look(), "warning")["restarts"]

    assert "within the last hour: 3 × SIGSEGV" in crashed.seen
    assert ("dmesg" in crashed.cause, "dmesg" in killed.cause) == (False, True)


@pytest.mark.parametrize(
    ("ago_s", "code"), [((12, 7, 2), "crashing"), ((26, 21, 16), "restarts"), ((40, 25, 5), "restarts")]
)
def test_children_that_crash_one_after_the_other_are_told_while_they_do(
    report: Report, ago_s: tuple[int, ...], code: str
) -> None:
    now = now_ms()
    report(crashes={"SIGKILL": 9}, crashed=[now - each * 1_000 for each in ago_s])

    found = of(look(), "warning")

    assert [name for name in ("crashing", "restarts") if name in found] == [code]
    if code == "crashing":
        said = r"has lost one child after the other: 3 within 10 s, the last 2\.?\d* s ago; .* 9 × SIGKILL"
        assert re.search(said, found[code].seen)


@pytest.mark.parametrize(
    ("what", "option", "own", "other"),
    [("releases", "release", "1.0", "1.1"), ("settings", "settings", "aa11", "bb22")],
)
def test_two_releases_or_settings_on_one_pool_are_a_warning_once_a_deploy_has_had_its_time(
    report: Report, facilities: Facilities, what: str, option: str, own: str, other: str
) -> None:
    now = now_ms()
    report(**{"release": "1.0", option: own}, started_at=now - 3_600_000)

    def found_after(ms: int, told: str) -> dict[str, Finding]:
        values = {"release": "1.0", option: told}
        facilities.pools.write(PoolReport("slow", "web-2", 9, "processes", 2, 0, now - ms, now, "up", **values))
        return {code: found for code, found in of(look(), "warning").items() if code in ("settings", "releases")}

    assert found_after(60_000, other) == {}
    assert found_after(660_000, own) == {}
    [(code, found)] = found_after(660_000, other).items()
    said = rf"slow runs 2 {what} beside one another for 11 min \d\d s: {re.escape(f'{own} on h, {other} on web-2')}"
    assert code == what and re.fullmatch(said, found.seen)


@pytest.mark.parametrize(
    ("own_since_s", "release", "since_s", "step"),
    [
        (90, "1.0", 300, "kill -TERM 9, on h"),
        (90, "1.1", 20, "Deploy the new release"),
        (90, "1.1", -600, "Deploy the new release"),
        (None, "1.1", -600, "Deploy the new release"),
        (None, "", -600, "Deploy the new release"),
        (None, "1.1", 300, "kill -TERM 9, on h, if its release is the older one"),
    ],
)
def test_a_pool_that_is_not_declared_is_ended_only_where_it_is_of_the_older_release(
    report: Report, facilities: Facilities, configure: Configure, own_since_s: int | None, release: str, since_s: int,
    step: str,
) -> None:  # fmt: skip
    """Pools are deployed first: web and scheduler, and a doctor beside them, are of the older release for a while."""
    configure(release="own")
    now = now_ms()
    if own_since_s is not None:
        report(release="own", started_at=STARTED_MS - own_since_s * 1000)
    started_at = STARTED_MS - since_s * 1000
    facilities.pools.write(PoolReport("gone", "h", 9, "threads", 1, 0, started_at, now, state="up", release=release))

    told = of(look(), "warning")["undeclared"].next
    assert told == step or (not step.startswith("kill") and told.startswith(step))


@pytest.mark.parametrize(("off_s", "word"), [(60, "ahead of"), (-60, "behind")])
def test_a_host_whose_clock_is_off_is_a_warning(report: Report, off_s: int, word: str) -> None:
    report(beat_at=now_ms() - 12_000)  # of one that was killed before it had compared its clock
    killed = of(look(), "warning")
    report(clock_ahead_ms=off_s * 1000)

    assert "clock_off" not in killed
    found = of(look(), "warning")["clock_off"]

    assert word in found.seen and "timedatectl" in found.next
