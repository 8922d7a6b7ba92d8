"""Queues by command: paused with a reason and an end, relocated, purged and undone."""

from __future__ import annotations

import io
import threading
import time
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import dramatiq
import pytest
import redis
from django.core.management import CommandError, call_command

from switchyard.audit.models import AuditEntry
from switchyard.broker.admin import purge
from switchyard.broker.admin.browse import pause_of
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.history_streams import decode_rows
from switchyard.conf import declared_yard
from switchyard.queues.services import pause_queue
from switchyard.schedules.runner import finish_moves
from tests.factories.commands import json_of, output_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
KEY = Keys().queue("default").paused


def pause_of_default() -> dict[str, Any]:
    found: dict[str, Any] = next(queue for queue in json_of("queues") if queue["queue"] == "default")
    return found


@pytest.fixture
def starts(facilities: Facilities) -> list[float]:
    """Times at which the messages of an actor started; call ``send`` of the actor ``timed``."""
    started: list[float] = []

    @dramatiq.actor(actor_name="timed", queue_name="default")
    def timed() -> None:
        started.append(time.time())

    return started


def test_a_pause_names_its_operator_its_reason_and_its_end(facilities: Facilities) -> None:
    told = json_of("queues", "pause", "default", "--until", "2h", "--reason", "disk is full")

    pause = pause_of_default()["pause"]
    assert told["until"][:19] == pause["until"][:19]
    assert (pause["reason"], bool(pause["by"])) == ("disk is full", True)
    lasts_s = (datetime.fromisoformat(pause["until"]) - datetime.fromisoformat(pause["since"])).total_seconds()
    assert 7_190 < lasts_s <= 7_201
    entry = AuditEntry.objects.get()
    assert (entry.act, entry.target, entry.reason, entry.via, entry.outcome) == (
        "queue.pause", "default", "disk is full", "command", "done",
    )  # fmt: skip


@pytest.mark.parametrize("within_s", [inf, pytest.param(1.0, marks=pytest.mark.long)])
def test_an_idle_worker_starts_within_a_second_of_the_end(
    starts: list[float], run_worker: Any, within_s: float
) -> None:
    with run_worker("default"):
        until = time.time() + 5
        json_of("queues", "pause", "default", "--until", datetime.fromtimestamp(until, UTC).isoformat())
        for _ in range(20):
            dramatiq.get_broker().actors["timed"].send()
        wait_for(lambda: len(starts) == 20)

    assert min(starts) >= until - 0.01
    assert max(starts) - until < within_s
    assert pause_of_default()["pause"] is None


def test_a_reason_and_an_end_are_replaced_and_the_start_stays(valkey: redis.Redis, facilities: Facilities) -> None:
    json_of("queues", "pause", "default", "--until", "1h", "--reason", 'first "quoted" \n ünïcode')
    first = pause_of(valkey.get(KEY), KEY)

    json_of("queues", "pause", "default", "--reason", "second")
    second = pause_of(valkey.get(KEY), KEY)

    assert first is not None and second is not None
    assert first.reason == 'first "quoted" \n ünïcode'
    assert (second.since, second.until, second.reason) == (first.since, None, "second")
    assert valkey.pttl(KEY) == -1


@pytest.mark.parametrize("text", ["yesterday", "2020-01-01", "0s", "400d", "25:00"])
def test_an_end_that_is_over_or_no_time_is_refused(facilities: Facilities, text: str) -> None:
    with pytest.raises(CommandError, match="write a span"):
        json_of("queues", "pause", "default", "--until", text)

    assert pause_of_default()["paused"] is False


def test_a_job_pauses_its_queue_until_a_time(facilities: Facilities, run_worker: Any) -> None:
    @dramatiq.actor(actor_name="asked", queue_name="default")
    def asked() -> None:
        pause_queue(datetime.now(UTC) + timedelta(hours=1), "the server asks to wait")

    with pytest.raises(LookupError, match="no job runs here"):
        asked.fn()
    job_id = asked.send().message_id
    with run_worker("default"):
        wait_for(lambda: facilities.records.states([job_id]) == ["succeeded"])

    assert (found := facilities.transport.stats("default").pause) is not None
    assert (found.by, found.reason) == (f"job {job_id}", "the server asks to wait")
    assert AuditEntry.objects.filter(act="queue.pause", who=f"job {job_id}").exists()


@pytest.fixture
def actors(facilities: Facilities) -> tuple[Any, Any, list[str]]:
    ran: list[str] = []

    @dramatiq.actor(actor_name="moves", queue_name="default")
    def moves(name: str) -> None:
        ran.append(name)

    @dramatiq.actor(actor_name="stays", queue_name="default", redact=("name",))
    def stays(name: str) -> None:
        ran.append(name)

    return moves, stays, ran


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(actors: Any, run_worker: Any) -> None:
    moves, _, ran = actors
    again = threading.Event()
    assert "paused" in output_of("queues", "pause", "default")
    assert "as before" in output_of("queues", "pause", "default")
    moves.send("held")
    with run_worker("default"):
        assert not again.wait(0.3), "time for a worker to take what it must not"
        assert ran == []
        assert json_of("queues")[1]["paused"] is True
        output_of("queues", "resume", "default")
        wait_for(lambda: ran == ["held"])

    assert json_of("queues")[1]["paused"] is False


def test_only_the_actors_messages_move_and_all_run_once(actors: Any, run_worker: Any) -> None:
    moves, stays, ran = actors
    for number in range(450):
        (moves if number % 3 else stays).send(f"{number}")
    output_of("queues", "pause", "default")
    told = output_of("queues", "relocate", "moves", "--from", "default", "--to", "slow")
    output_of("queues", "resume", "default")
    listed = {queue["queue"]: queue["depth"] for queue in json_of("queues")}

    assert (listed["default"], listed["slow"]) == (150, 300)
    assert "450 of 450 looked at, 300 moved" in told
    with run_worker("default", "slow"):
        wait_for(lambda: len(ran) == 450)
        dramatiq.get_broker().join("slow", timeout=60_000)
    assert sorted(ran, key=int) == [str(number) for number in range(450)]


def test_several_queues_are_paused_and_resumed_by_one_command() -> None:
    told = output_of("queues", "pause", "slow", "default", "slow", "--reason", "disk is full", "--until", "2h")
    paused = {queue["queue"]: queue["pause"] for queue in json_of("queues") if queue["paused"]}
    again = json_of("queues", "resume", "default", "slow")

    assert [line.partition(":")[0] for line in told.splitlines()] == ["slow", "default"]
    assert {name: pause["reason"] for name, pause in paused.items()} == dict.fromkeys(
        ("default", "slow"), "disk is full"
    )
    assert again == [{"queue": name, "paused": False, "changed": True} for name in ("default", "slow")]


def test_an_unknown_queue_among_several_is_refused_before_any_is_paused() -> None:
    with pytest.raises(CommandError, match="slwo"):
        output_of("queues", "pause", "default", "slwo")

    assert not any(queue["paused"] for queue in json_of("queues"))


def test_a_message_that_came_back_is_not_taken_for_finished(actors: Any, run_worker: Any) -> None:
    moves, _, ran = actors
    moves.send("there and back")
    output_of("queues", "relocate", "moves", "--from", "default", "--to", "slow")
    output_of("queues", "relocate", "moves", "--from", "slow", "--to", "default")
    with run_worker("default"):
        wait_for(lambda: ran == ["there and back"])


def test_a_terminal_of_80_columns_has_room_for_every_name(
    facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    call_command("switchyard", "queues", stdout=out)
    head, *rows = (line.split() for line in out.getvalue().splitlines() if line)

    assert head == ["queue", "waiting", "scheduled", "retrying", "dead", "oldest", "busy/slots"]
    assert [row[0] for row in rows] == [queue.name for queue in declared_yard().queues]


def test_a_queue_that_is_not_declared_is_named() -> None:
    for arguments in (["pause", "nope"], ["relocate", "a", "--from", "nope", "--to", "slow"]):
        with pytest.raises(CommandError, match="'nope' is not declared"):
            output_of("queues", *arguments)


@pytest.fixture
def family(facilities: Facilities) -> QueueOperations:
    """Five messages wait in ``default``, and one is scheduled in its retry lane."""
    family: QueueOperations = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    family.enqueue([Entry(f"m{number}", b"{}") for number in range(5)])
    family.enqueue([Entry("retry", b"{}")], lane="retry", delay_ms=60_000)
    return family


def test_without_yes_it_only_counts(family: QueueOperations) -> None:
    with pytest.raises(CommandError, match="would drop 6 messages of default; write --yes"):
        json_of("queues", "purge", "default")

    assert purge.purges(family) == [] and not AuditEntry.objects.exists()


def test_it_is_undone_within_a_minute(family: QueueOperations) -> None:
    told = json_of("queues", "purge", "default", "--yes", "--reason", "sent twice")

    assert (told["queue"], told["purged"]) == ("default", 6)
    assert finish_moves() == 0, "there is time to undo it"
    family.enqueue([Entry("m2", b"{}")])
    undone = {"queue": "default", "put_back": 5, "left_out": 1, "purges": [told["purge"]]}
    assert json_of("queues", "purge", "default", "--undo") == undone
    assert [queue["depth"] for queue in json_of("queues") if queue["queue"] == "default"] == [5]
    with pytest.raises(CommandError, match="no purge that can be undone"):
        json_of("queues", "purge", "default", "--undo")
    acts = [(entry.act, entry.count, entry.reason) for entry in AuditEntry.objects.order_by("id")]
    assert acts == [("queue.purge", 6, "sent twice"), ("queue.purge_undo", 5, "")]
    assert AuditEntry.objects.get(act="queue.purge_undo").detail == {"purge": told["purge"], "left_out": 1}


def test_the_scheduler_drops_it_after_the_minute(family: QueueOperations, monkeypatch: pytest.MonkeyPatch) -> None:
    purge.set_aside(family, "p", by="me", undo_ms=0)

    assert finish_moves() == 6
    assert purge.purges(family) == []
    with pytest.raises(CommandError, match="no purge that can be undone"):
        json_of("queues", "purge", "default", "--undo")


def test_the_scheduler_ends_an_undo_that_was_killed(family: QueueOperations) -> None:
    purge.set_aside(family, "p", by="me")
    family.calls.call(script("claim_purge"), [family.keys.purges], ["p", "undo"])

    assert finish_moves() == 6
    assert family.calls.client.hlen(family.keys.bodies) == 6


def test_the_jobs_of_dropped_messages_are_cancelled_in_records_and_history(facilities: Facilities) -> None:
    @dramatiq.actor(actor_name="is_purged", queue_name="default")
    def is_purged() -> None:
        raise AssertionError("nothing runs here")

    job_id = is_purged.send().message_id
    family: QueueOperations = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    purge.set_aside(family, "p", by="me", undo_ms=0)

    assert finish_moves() == 1

    record = facilities.records.read(job_id)
    assert record is not None
    assert (record.state, record.reason, record.actor, record.queue) == ("cancelled", "purged", "is_purged", "default")
    [entry] = family.calls.client.xrange(family.keys.history)
    [row] = decode_rows(entry[1][b"rows"])
    assert (row.id, row.state, row.reason, row.lane) == (job_id, "cancelled", "purged", "default")


def test_a_queue_whose_purges_cannot_be_read_does_not_hold_up_the_others(
    family: QueueOperations, facilities: Facilities
) -> None:
    others = [dramatiq.get_broker().lane(name)[0] for name in facilities.records.queues]  # type: ignore[attr-defined]
    for other in others:
        other.enqueue([Entry("m", b"{}")])
        purge.set_aside(other, "p", by="me", undo_ms=0)
    family.calls.client.delete(others[0].keys.purges)
    family.calls.client.set(others[0].keys.purges, "no hash")

    finish_moves()

    assert [purge.purges(other) for other in others[1:]] == [[]] * (len(others) - 1)
