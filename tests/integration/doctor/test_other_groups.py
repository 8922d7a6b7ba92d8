"""Configuration, disk, scheduler, dead letters and alerts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.db import connection
from django.utils import timezone

from project.topology import YARD
from switchyard.alerts.models import Alert, Delivery
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.topology import Yard
from switchyard.dead_letters.projection import project
from switchyard.long_running import SCHEDULER, Leadership
from switchyard.operations.findings import configuration, disk, records
from switchyard.schedules.models import ScheduleState, ScheduleTick, StoredSchedule
from tests.factories.letters import letter
from tests.integration.doctor.conftest import Configure, of
from tests.integration.jobs.history_rows import job_row

pytestmark = pytest.mark.django_db(transaction=True)
Alerted = Callable[..., None]


def test_a_wrong_yard_is_named_with_its_fix(configure: Configure) -> None:
    queues = (*YARD.queues[1:],)
    configure(topology=Yard(queues, YARD.pools))

    found = of(configuration.look(), "error")

    assert "urgent" in found["switchyard.E001"].seen
    assert "in the topology" in found["switchyard.E001"].next


def test_development_settings_on_something_deployed_are_an_error(configure: Configure) -> None:
    configure(DEBUG=True, broker_url="redis://:canary@valkey.example.com/0")

    found = of(configuration.look(), "error")["debug"]

    assert "SWITCHYARD_BROKER_URL" in found.seen and "canary" not in str(found)
    assert "DJANGO_DEBUG=0" in found.next
    configure(variables=())  # a project that says so in its settings
    assert "debug" not in of(configuration.look(), "error")


def test_production_with_its_defaults_is_warned_of_them(configure: Configure) -> None:
    configure(DEBUG=False, alert_urls=())

    found = of(configuration.look(), "warning")

    assert "no_alert_urls" in found
    assert ("sqlite" in found) == (connection.vendor == "sqlite")


@pytest.mark.parametrize(("free", "severity"), [(999_000_000, "warning"), (99_000_000, "error")])
def test_a_disk_that_fills_up_is_told_before_it_is_full(
    free: int, severity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=10**12, used=10**12 - free, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    assert of(disk.look(), severity)["low"].next.startswith("du -xh")
    # A container's folder in memory is this small, and has room.
    usage.total = free
    assert ("low" in of(disk.look(), severity)) == (severity == "error")


def test_a_metrics_folder_without_room_is_a_warning(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, where it has a file system of its own, such as one in memory."""
    configure(metrics_dir=Path("/"))
    free = {Path("/"): 64_000}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(total=10**12, free=free.get(folder, 10**11))
    )

    found = of(disk.look(), "warning")

    assert found["low"].subject == "metrics" and "the metrics folder has" in found["low"].seen
    free.clear()
    assert not of(disk.look(), "warning")


def test_a_state_folder_that_is_not_there_is_a_warning(configure: Configure, tmp_path: Path) -> None:
    configure(state_dir=tmp_path / "nowhere")

    assert of(disk.look(), "warning")["folder"].next == f"mkdir -p {tmp_path / 'nowhere'}"


def test_no_scheduler_is_a_warning_a_leader_is_told_and_a_lease_that_never_lapses_is_an_error(
    facilities: Facilities, valkey: redis.Redis
) -> None:
    assert of(records.look_at_leader(), "warning")["down"].next == "manage.py switchyard runscheduler"

    Leadership(RedisCalls(valkey), Keys()).acquire_or_renew()
    assert "a scheduler leads" in of(records.look_at_leader(), "ok")["ok"].seen

    valkey.set(Keys().lock(SCHEDULER), "somebody")
    assert of(records.look_at_leader(), "error")["lease"].next == f"valkey-cli DEL {Keys().lock(SCHEDULER)}"


@pytest.fixture
def schedule() -> str:
    """The name of one of the project's own schedules."""
    return records.schedules()[0].name


def test_a_tick_that_was_not_sent_is_a_warning(schedule: str) -> None:
    ScheduleState.objects.create(actor=schedule, spec="", since=timezone.now() - timedelta(days=400))

    found = of(records.look_at_ticks(), "warning")["late"]

    assert found.subject == schedule and "was not sent" in found.seen


def test_a_schedule_whose_ticks_cancel_all_of_its_jobs_is_a_warning() -> None:
    row = {"actor": "export_everything", "args": ["csv"], "every_s": 60, "overlap": "replace"}
    StoredSchedule.objects.create(name="sync", **row)
    ScheduleState.objects.create(actor="sync", spec="", since=timezone.now())
    for number in range(4):
        due_at = timezone.now() - timedelta(minutes=4 - number)
        ScheduleTick.objects.create(schedule="sync", due_at=due_at, outcome="sent", job_id=f"job-{number}")
        if number:
            job_row(job_id=f"job-{number - 1}", actor="export_everything", state="cancelled")

    found = of(records.look_at_ticks(), "warning")["replaced"]

    assert found.seen == "every job of the schedule sync is cancelled by the next tick: the last 3 were"
    StoredSchedule.objects.update(overlap="skip")
    assert "replaced" not in of(records.look_at_ticks(), "warning")


def test_new_dead_letters_are_a_warning_with_their_cause(facilities: Facilities) -> None:
    assert of(records.look_at_dead_letters(), "ok")
    dead = letter()
    project(dead)

    found = of(records.look_at_dead_letters(), "warning")["new"]

    assert dead.exception in found.seen and dead.actor in found.seen
    assert found.next == f"manage.py switchyard deadletters list --group {dead.fingerprint}"


@pytest.fixture
def alerted() -> Alerted:
    """An alert went to a channel, so many seconds ago."""

    def write(state: str, ago_s: int, *, error: str = "", severity: str = "warning", **fields: Any) -> None:
        at = timezone.now() - timedelta(seconds=ago_s)
        alert = Alert.objects.create(
            fingerprint=f"f{ago_s}", kind="k", title="t", severity=severity, sample="s", count=1, first_at=at,
            last_at=at,
        )  # fmt: skip
        sent_at = at if state == "sent" else None
        Delivery.objects.create(
            alert=alert, channel="hook", reported=0, count=1, state=state, tries=1, next_try_at=at, error=error,
            sent_at=sent_at, **fields,
        )  # fmt: skip

    return write


def test_a_channel_that_takes_nothing_is_a_warning_until_it_took_one(alerted: Alerted) -> None:
    alerted("sent", 600)
    alerted("given_up", 300, error="answered 500")

    found = of(records.look_at_alerts(), "warning")["channel"]
    alerted("sent", 2)
    alerted("pending", -10, error="answered 500")  # the third retry comes 45 s after it
    Delivery.objects.filter(state="pending").update(tries=3)

    assert found.subject == "hook"
    assert "1 alert given up" in found.seen and "answered 500" in found.seen
    assert "channel" not in of(records.look_at_alerts(), "warning")


def test_critical_alerts_that_nobody_acknowledged_are_a_warning_but_for_a_finding_alone(alerted: Alerted) -> None:
    for _ in range(2):
        alerted("sent", 60, severity="critical")
    Alert.objects.filter(pk=Alert.objects.latest("pk").pk).update(kind="finding")
    found = of(records.look_at_alerts(), "warning")["open"]
    assert "2 critical alerts are not acknowledged" in found.seen and "/admin/switchyard_alerts/alert/" in found.next

    Alert.objects.exclude(kind="finding").delete()

    assert "open" not in of(records.look_at_alerts(), "warning")
