"""Pools that do not report, do not work, or go by another clock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

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
        now = time.time_ns() // 1_000_000
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


def test_a_pool_that_paused_is_an_error(report: Report) -> None:
    report(state="paused")

    assert of(look(), "error")["paused"].next == "manage.py switchyard broker"


def test_a_pool_that_never_gets_ready_is_an_error(report: Report) -> None:
    report(state="starting", children=[])

    assert "0 of 2 children are ready" in of(look(), "error")["starting"].seen


def test_a_pool_without_one_of_its_children_is_a_warning(report: Report) -> None:
    report(children=[{"pid": 1, "ready": True}])

    assert "has 1 of 2 children" in of(look(), "warning")["children"].seen


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
    now = time.time_ns() // 1_000_000
    report(crashes={"SIGKILL": 9}, crashed=[now - each * 1_000 for each in ago_s])

    found = of(look(), "warning")

    assert [name for name in ("crashing", "restarts") if name in found] == [code]
    if code == "crashing":
        said = r"has lost one child after the other: 3 within 10 s, the last 2\.?\d* s ago; .* 9 × SIGKILL"
        assert re.search(said, found[code].seen)


def test_two_releases_on_one_pool_are_a_warning_once_a_deploy_has_had_its_time(
    report: Report, facilities: Facilities
) -> None:
    now = time.time_ns() // 1_000_000
    report(release="1.0", started_at=now - 3_600_000)

    def found_after(ms: int) -> dict[str, Finding]:
        newer = PoolReport("slow", "web-2", 9, "processes", 2, 0, now - ms, now, "up", release="1.1")
        facilities.pools.write(newer)
        return {code: found for code, found in of(look(), "warning").items() if code == "releases"}

    assert found_after(60_000) == {}
    assert re.fullmatch(
        r"slow runs 2 releases beside one another for 11 min \d\d s: 1\.0 on h, 1\.1 on web-2",
        found_after(660_000)["releases"].seen,
    )


def test_two_settings_of_one_release_on_a_pool_are_a_warning_once_a_deploy_has_had_its_time(
    report: Report, facilities: Facilities
) -> None:
    now = time.time_ns() // 1_000_000
    report(release="1.0", settings="aa11", started_at=now - 3_600_000)

    def found_after(ms: int, settings: str) -> dict[str, Finding]:
        other = PoolReport("slow", "web-2", 9, "processes", 2, 0, now - ms, now, "up", release="1.0", settings=settings)
        facilities.pools.write(other)
        return {code: found for code, found in of(look(), "warning").items() if code in ("settings", "releases")}

    assert found_after(60_000, "bb22") == {}
    assert found_after(660_000, "aa11") == {}
    seen = found_after(660_000, "bb22")["settings"].seen
    assert re.fullmatch(r"slow runs 2 settings beside one another for 11 min \d\d s: aa11 on h, bb22 on web-2", seen)


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
    now = time.time_ns() // 1_000_000
    if own_since_s is not None:
        report(release="own", started_at=STARTED_MS - own_since_s * 1000)
    started_at = STARTED_MS - since_s * 1000
    facilities.pools.write(PoolReport("gone", "h", 9, "threads", 1, 0, started_at, now, state="up", release=release))

    told = of(look(), "warning")["undeclared"].next
    assert told == step or (not step.startswith("kill") and told.startswith(step))


@pytest.mark.parametrize(("off_s", "word"), [(60, "ahead of"), (-60, "behind")])
def test_a_host_whose_clock_is_off_is_a_warning(report: Report, off_s: int, word: str) -> None:
    report(beat_at=time.time_ns() // 1_000_000 - 12_000)  # of one that was killed before it had compared its clock
    killed = of(look(), "warning")
    report(clock_ahead_ms=off_s * 1000)

    assert "clock_off" not in killed
    found = of(look(), "warning")["clock_off"]

    assert word in found.seen and "timedatectl" in found.next
