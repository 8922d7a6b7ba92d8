from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, connection
from dramatiq.actor import Actor

from switchyard.broker.interface import Facilities
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.dead_letters import acts, projection
from switchyard.dead_letters.models import DeadLetter
from tests.factories.letters import letter
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db


def test_recording_twice_makes_one_row(bury: Callable[..., Letter]) -> None:
    made = bury()

    projection.project_or_log(made)
    projection.project_or_log(made)

    row = DeadLetter.objects.get()
    assert (row.message_id, row.state, row.deaths, row.history) == (made.id, "new", 1, [])
    assert row.payload["arguments"] == {"number": 7}


def test_letter_that_died_again_is_new_again_with_its_history(bury: Callable[..., Letter]) -> None:
    first = bury()
    projection.project_or_log(first)
    acts.act_on(first.id, "requeue", by="a.lind")

    projection.project_or_log(dataclasses.replace(first, died_at=first.died_at + 1_000, attempts=1, error="again"))

    row = DeadLetter.objects.get()
    assert (row.state, row.deaths, row.attempts, row.error) == ("new", 2, 1, "again")
    assert [entry["act"] for entry in row.history] == ["sent", "died", "requeue", "died again"]


def test_late_news_of_an_earlier_death_changes_nothing(bury: Callable[..., Letter]) -> None:
    first = bury()
    later = dataclasses.replace(first, died_at=first.died_at + 1_000, error="later")
    projection.project_or_log(later)

    projection.project_or_log(first)

    assert DeadLetter.objects.get().error == "later"


def test_redacted_arguments_never_reach_the_database(bury: Callable[..., Letter]) -> None:
    made = letter()
    message = made.message | {
        "args": [3, "ada@example.com"],
        "kwargs": {"options": {"api_key": "k-123"}, "password": "p-123"},
    }

    projection.project_or_log(dataclasses.replace(made, message=message))

    row = DeadLetter.objects.get()
    assert row.payload["arguments"]["number"] == 3
    assert not {"ada@example.com", "k-123", "p-123"} & set(str(row.payload).replace("'", " ").split())


def test_arguments_of_an_unknown_actor_are_hidden() -> None:
    made = letter(actor="gone_actor")

    projection.project_or_log(made)

    assert DeadLetter.objects.get().payload["arguments"] == {"number": "[redacted]"}


def test_text_that_no_database_takes_is_escaped() -> None:
    made = letter(error="nul \x00 and \ud800", traceback="\x00")
    kwargs = {"number": float("nan"), "text": "a\x00b\udfff"}

    projection.project_or_log(dataclasses.replace(made, message=made.message | {"kwargs": kwargs}))

    row = DeadLetter.objects.get()
    assert (row.error, row.traceback) == ("nul \\x00 and \\ud800", "\\x00")


def test_database_that_fails_costs_the_row_only(bury: Callable[..., Letter], facilities: Facilities) -> None:
    made = bury()

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise DatabaseError("away")

    with connection.execute_wrapper(refuse):
        projection.project_or_log(made)

    assert facilities.transport.find_dead_letter("default", made.id) is not None
    assert DeadLetter.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_worker_mirrors_what_it_gives_up(
    fail_always: Actor[Any, Any], run_worker: Callable[..., Any], facilities: Facilities
) -> None:
    message = fail_always.send(number=3, address="ada@example.com")

    with run_worker("default"):
        row = wait_for(lambda: DeadLetter.objects.filter(message_id=message.message_id).first())

    assert (row.actor, row.queue, row.exception, row.attempts) == ("fail_always", "default", "KeyError", 1)
    assert row.payload["arguments"] == {"number": 3, "address": "[redacted]"}
    assert "vat_rate" in row.traceback
