"""A reshard is interrupted: pages, doctor, metrics and commands name the slot and its queue, and judge the others."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from switchyard.addons.cluster.hash_slots import HashSlotHalfMoved, slot_of
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.history.filters import Filter
from switchyard.jobs.listing.pages import find_jobs
from switchyard.operations import views
from switchyard.operations.findings.examine import examine
from switchyard.operations.overview import overview
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.addons.cluster.operations.yard_on_cluster import by_name, fill, metrics, output_of, words, yard_on_cluster

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterUnderTest]:
    """The project's yard is on three masters without replicas."""
    with yard_on_cluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.mark.parametrize("steps", [1, 2], ids=["no key moved", "all keys moved, the slot still open"])
def test_a_slot_that_is_left_half_moved_is_named_with_its_queue(
    cluster: ClusterUnderTest, watcher: Client, steps: int
) -> None:
    sent = fill(facilities())
    key = declared_yard().keys.queue("default").bodies
    source, slot = cluster.owner(key), slot_of(key)
    moving = cluster.keys_moved_one_by_one(key, cluster.another(source))
    for _ in range(steps):
        next(moving)

    fact = f"hash slot {slot} is half moved away from node {source.address}; default starts nothing"
    step = f"--cluster fix {source.address}"
    # A view that sends a job.
    actor: Any = dramatiq.get_broker().actors["of_default"]
    with pytest.raises(HashSlotHalfMoved, match=rf"hash slot {slot} is half moved.*{step}"):
        actor.send()
    # Pages: the finding, and every queue with its figures.
    room = overview()
    assert (room.verdict.label, room.verdict.level) == ("Slot half moved", "bad")
    assert fact in room.verdict.sentence and step in room.verdict.then
    assert {name for name, word in words(room).items() if word == "Half moved"} == {"default"}
    assert {row.name: row.waiting for row, _ in room.rows if row.kind == "queue"} == dict.fromkeys(words(room), 1)
    page = watcher.get(reverse("switchyard-queue", args=["default"])).content.decode()
    assert "Half moved" in page
    # Readiness, which is about this process, and metrics.
    assert views._ask_broker() == ""
    values = metrics()
    assert {name for name in words(room) if values[f'switchyard_queue_away{{queue="{name}"}}']} == {"default"}
    # Doctor.
    told = by_name(examine())
    assert fact in told["broker.half_moved"].seen
    assert told["broker.half_moved"].severity == "error"
    assert step in told["broker.half_moved"].next
    assert not [name for name in told if name.endswith((".not_checked", ".away", ".broken"))]
    assert "pools.ok" in told and [name for name in told if name.startswith("queues.")]
    # The list of jobs has the others' jobs, and names what is missing.
    jobs = find_jobs(Filter())
    assert {line.id for line in jobs.jobs} == {id_ for name, id_ in sent.items() if name != "default"}
    assert list(jobs.away) == ["default"] and not jobs.broker_error
    # Commands.
    assert output_of("queues", "status", "default")[0].startswith("default: half moved")
    with pytest.raises(SystemExit, match="1"):
        call_command("switchyard", "broker", "--json", stdout=(out := io.StringIO()))
    [found] = [one for one in json.loads(out.getvalue())["findings"] if one["code"] == "half_moved"]
    assert fact in found["seen"] and step in found["remedy"]

    # The move ends, and nothing of it is said any more.
    for _ in moving:
        pass
    cluster.wait_until_whole()
    assert actor.send().message_id
    assert "broker.half_moved" not in by_name(examine())


def test_reports_of_pools_in_a_half_moved_slot_leave_the_queues_in_sight(cluster: ClusterUnderTest) -> None:
    fill(facilities())
    reports = declared_yard().keys.pool_reports()
    moving = cluster.keys_moved_one_by_one(reports, cluster.another(cluster.owner(reports)))
    next(moving)

    room = overview()
    [half_moved] = [ranked for ranked in room.verdict.findings if ranked.label == "Slot half moved"]
    assert half_moved.level == "warn" and "which pools run is not known" in half_moved.finding.then
    assert not room.away and not room.pools_known
    assert not {word for word in words(room).values() if word in ("Half moved", "No pool", "Unknown")}
    told = by_name(examine())
    assert f"hash slot {slot_of(reports)} is half moved" in told["broker.half_moved"].seen
    assert not [name for name in told if name.endswith((".not_checked", ".broken")) or name == "pools.down"]
    assert views._ask_broker() == ""
