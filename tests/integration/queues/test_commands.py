"""Queue commands of an operator's terminal: pause, resume, inspect, relocate."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command

from switchyard.broker.interface import Facilities
from switchyard.conf import declared_yard
from tests.factories.commands import json_of, output_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def actors(facilities: Facilities) -> Iterator[tuple[Any, Any, list[str]]]:
    ran: list[str] = []

    @dramatiq.actor(actor_name="moves", queue_name="default")
    def moves(name: str) -> None:
        ran.append(name)

    @dramatiq.actor(actor_name="stays", queue_name="default", redact=("name",))
    def stays(name: str) -> None:
        ran.append(name)

    yield moves, stays, ran
    for name in ("moves", "stays"):
        del dramatiq.get_broker().actors[name]


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
