"""Sender, value or owner that most messages of a late queue have in common, read from the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.operations.findings.facts import Flood, flood_of
from switchyard.operations.rows import Row, RowStatus

Enqueue = Callable[..., QueueOperations]


@pytest.fixture(autouse=True)
def sync() -> Iterator[None]:

    @dramatiq.actor(actor_name="sync", queue_name="slow", redact=("mail",))
    def sync(customer_id: int = 0, format: str = "", mail: str = "", api_token: str = "", urgent: bool = False) -> None:
        pass

    yield
    del dramatiq.get_broker().actors["sync"]


def entry(number: int, *args: Any, actor: str = "sync", parent: str = "", owner: str = "", **kwargs: Any) -> Entry:
    options = {name: value for name, value in (("parent", parent), ("owner", owner)) if value}
    message = Message("slow", actor, args, kwargs, options, f"job-{number}", 1)
    return Entry(message.message_id, codec.encode(message))


def flood(enqueue: Enqueue, *entries: Entry, busy: int = 4) -> Flood | None:
    enqueue("slow", *entries)
    return flood_of(
        Row("slow", "queue", "", "open", RowStatus("Late", "warn"), "slow", len(entries), slots=4, busy=busy)
    )


def test_an_actor_whose_jobs_sent_most_of_the_newest_messages_sends_itself(enqueue: Enqueue) -> None:
    first = [entry(number, actor="other") for number in range(100)]
    own = [entry(number, parent=f"job-{number - 1}") for number in range(100, 300)]

    found = flood(enqueue, *first, *own, *(entry(number, actor="other", parent="job-1") for number in range(300, 302)))

    assert found == Flood(98, 100, actor="sync", place="newest") and found.sends_itself
    assert found.text == "sync sends itself: 98 of the newest 100 that wait"


def test_jobs_that_another_actor_sent_or_an_unknown_job_do_not_send_themselves(enqueue: Enqueue) -> None:
    others = [entry(number, actor="other") for number in range(100)]
    sent = [entry(number, parent=f"job-{number % 100}" if number % 2 else "gone") for number in range(100, 300)]

    assert flood(enqueue, *others, *sent) is None


def test_the_value_of_most_of_the_newest_messages_is_told_by_the_name_of_its_argument(enqueue: Enqueue) -> None:
    every = [entry(number, number, format="pdf") for number in range(103)]
    seventh = [entry(number, 7, format="pdf") for number in range(200, 297)]

    found = flood(enqueue, *every, *seventh)

    assert found == Flood(97, 100, actor="sync", argument="customer_id=7", place="newest")
    assert found.text == "97 of the newest 100 are customer_id=7"


def test_the_value_of_those_that_others_wait_behind_is_told_as_well(enqueue: Enqueue) -> None:
    seventh = [entry(number, 7) for number in range(150)]

    found = flood(enqueue, *seventh, *(entry(number, number) for number in range(200, 300)))

    assert found is not None and (found.argument, found.place) == ("customer_id=7", "next")


@pytest.mark.parametrize(
    "values",
    [
        lambda number: {"format": "pdf"},  # of every message: no customer waits behind another
        lambda number: {"mail": 1 if number % 20 else 2},  # which its actor redacts
        lambda number: {"api_token": 1 if number % 20 else 2},  # by its name a secret
        lambda number: {"urgent": bool(number % 20)},
        lambda number: {"format": "Ann Lee" if number % 20 else "y"},  # arguments are seen by some of the staff alone
    ],
)
def test_a_value_that_says_nothing_or_is_hidden_is_never_told(enqueue: Enqueue, values: Callable[..., Any]) -> None:
    assert flood(enqueue, *(entry(number, **values(number)) for number in range(250))) is None


def test_an_owner_is_told_whose_flood_others_wait_behind(enqueue: Enqueue) -> None:
    of_acme = [entry(number, number, owner="acme") for number in range(150)]

    found = flood(enqueue, *of_acme, *(entry(number, number, owner=f"c-{number}") for number in range(200, 320)))

    assert found is not None and found.text == "100 of the next 100 of acme"


def test_an_owner_is_told_where_nothing_else_is_common_and_slots_are_busy(enqueue: Enqueue) -> None:
    of_acme = [entry(number, number, owner="acme" if number % 20 else "globex") for number in range(250)]

    found = flood(enqueue, *of_acme)

    assert found is not None and (found.owner, found.text) == ("acme", "about 95 % of acme")
    assert flood(enqueue, *of_acme, busy=1) is None
