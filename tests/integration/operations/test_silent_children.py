"""A child that answers nothing while it runs a task: every page, command and finding says the same of it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.urls import reverse

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.pool_reports import PoolReport, SilentChild, Stack
from switchyard.jobs.queries import families, running_jobs
from switchyard.jobs.services import submit
from switchyard.operations.alerting import after_s
from switchyard.operations.findings import facts, pools
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.findings.finding import ranked
from switchyard.operations.queries import yard_state
from tests.factories.commands import output_of
from tests.factories.pages import text_of
from tests.factories.staff import staff

pytestmark = pytest.mark.django_db(transaction=True)
PID = 24_636
FRAMES = [
    "/usr/lib/python3.11/re/__init__.py:176 search",
    "tests/ways.py:71 hold",
    "dramatiq/worker.py:5 process_message",
]


def report(facilities: Facilities, silent: list[SilentChild]) -> None:
    """Every pool reports that it is up; ``default`` has a child that runs something."""
    now = now_ms()
    child: Any = {"pid": PID, "ready": True, "busy": 1, "done": 0, "rss_bytes": 1}
    for pool in settings.SWITCHYARD.topology.pools:
        only = {"busy": 1, "children": [child], "silent": silent} if pool.name == "default" else {"busy": 0}
        facilities.pools.write(
            PoolReport(pool.name, "h", 1, pool.kind, pool.total_slots, started_at=now, beat_at=now, state="up", **only)
        )


@pytest.fixture
def held(facilities: Facilities) -> list[str]:
    """Ids of three jobs that a child of ``default`` holds; it runs the first, and has answered nothing for 8 s."""

    @dramatiq.actor(actor_name="parse_address", queue_name="default")
    def parse_address() -> None:
        raise AssertionError("nothing runs here")

    ids = [submit(parse_address) for _ in range(3)]
    [family] = families(["default"])
    family.join("default.h.1.0a1b2c3d.1.1/live")
    family.fetch("default.h.1.0a1b2c3d.1.1/live", 3, request=1)
    report(facilities, [SilentChild(PID, 1, 8_123, {ids[0]: now_ms() - 9_000}, [Stack("thread", FRAMES)])])
    return ids


def shown(page: str, *arguments: str) -> str:
    client = staff("view_operations", "view_job")
    return text_of(client.get(reverse(page, args=arguments)))


def test_what_it_runs_counts_as_running_and_what_it_has_fetched_does_not(held: list[str]) -> None:
    [job] = running_jobs()

    assert (job.id, job.actor, job.silent_ms) == (held[0], "parse_address", 8_123)
    assert job.run_ms is not None and job.run_ms >= 9_000


def test_the_pages_of_worker_queue_and_jobs_agree(held: list[str]) -> None:
    workers, queue = shown("switchyard-operations-workers"), shown("switchyard-queue", "default")
    runs, waits = shown("switchyard-job", held[0]), shown("switchyard-job", held[1])

    assert "No answer from child 24636 of default" in workers
    assert "pid 24636 silent for 8 s 1" in workers
    assert "Nobody" not in queue and "parse_address holds 1 of 8 slots, its longest job for" in queue
    assert "parse_address running in a process that answers nothing" in runs
    assert "parse_address waiting in a process that answers nothing" in waits
    assert "Child 24636 of default on h holds it, and has answered nothing for 8.1 s." in runs


def test_a_job_is_queued_again_once_the_child_answers(held: list[str], facilities: Facilities) -> None:
    report(facilities, [])

    assert running_jobs() == []
    assert "parse_address queued" in shown("switchyard-job", held[0])
    assert "Not known yet: what they run has no record of that." in shown("switchyard-queue", "default")


def test_commands_and_doctor_say_it_too(held: list[str]) -> None:
    printed = output_of("workers", "--pool", "default")
    [found] = [one for one in pools.look_at_absence(facts_of(facts.read().state)) if one.code == "child_silent"]

    assert "child 24636: silent for 8 s, 1 busy, 0 done" in printed
    assert found.seen == (
        "child 24636 of default has answered nothing for 8 s; it runs parse_address, in hold, tests/ways.py:71"
    )
    assert (found.severity, found.subject) == ("warning", "default")
    assert after_s(ranked([found])[0]) == 120.0
    assert yard_state().pools["default"].idle == 0, "its other slots start nothing"

    submit(dramatiq.get_broker().actors["parse_address"])
    [found] = [one for one in pools.look_at_absence(facts_of(facts.read().state)) if one.code == "child_silent"]
    assert (found.severity, after_s(ranked([found])[0])) == ("error", 30.0), (
        "it has all slots of its pool, and work waits"
    )
    assert found.next.startswith("kill -USR1 24636, on h")
    assert held[0] in found.then


def test_children_that_are_silent_one_after_the_other_are_told_between_them(
    held: list[str], facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_before = {24_635: (now_ms() - 20_000, held[1], "parse_address")}
    monkeypatch.setattr(pools, "SILENT", defaultdict(dict, {"default": seen_before}))
    list(pools.look_at_absence(facts_of(facts.read().state)))
    report(facilities, [])

    [found] = [one for one in pools.look_at_absence(facts_of(facts.read().state)) if one.code == "child_silent"]

    assert found.seen.startswith("2 children of default have answered nothing, one after the other; the last ran parse")
    assert found.next == f"manage.py switchyard jobs cancel {held[0]}"
    del pools.SILENT["default"][24_635]
    after_one = [one.code for one in pools.look_at_absence(facts_of(facts.read().state))]
    assert "child_silent" not in after_one, "one alone is over when it answers"
