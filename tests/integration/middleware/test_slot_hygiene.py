"""State that an attempt leaves in its thread (transactions, language, time zone) reaches no later job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.utils import timezone, translation

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
KEPT: list[Any] = []


def begin() -> None:
    """Begin a transaction that Django does not know."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")


def enter_block() -> None:
    """Enter a block that nobody leaves."""
    transaction.atomic().__enter__()


def suspend_in_block() -> None:
    """Keep a generator that stands within a block."""

    def values() -> Iterator[int]:
        with transaction.atomic():
            yield 1

    KEPT.append(values())
    next(KEPT[-1])


def close_in_block() -> None:
    """Close the connection within a block that nobody leaves."""
    enter_block()
    connection.close()


def switch_autocommit_off() -> None:
    """Write, and leave the commit to nobody."""
    transaction.set_autocommit(False)
    Group.objects.create(name="uncommitted")


def rows() -> int:
    """Return how many rows the innocent jobs have written."""
    return Group.objects.filter(name__startswith="row-").count()


@pytest.mark.parametrize("leave", [begin, enter_block, suspend_in_block, close_in_block, switch_autocommit_off])
@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_transaction_left_open_fails_its_attempt_and_takes_no_later_row(
    yard_broker: Callable[..., RedisBroker], run_worker: Any, leave: Callable[[], None], ends: str
) -> None:
    broker = yard_broker(small_yard(max_retries=0))

    @dramatiq.actor(broker=broker, queue_name="work")
    def leaves() -> None:
        leave()
        if ends == "raises":
            raise ValueError("as it was told to")

    @dramatiq.actor(broker=broker, queue_name="work")
    def writes(name: str) -> None:
        Group.objects.create(name=name)

    transport = facilities(broker).transport
    with run_worker("work", broker=broker, threads=1):
        for number in range(3):
            leaves.send()
            writes.send(f"row-{number}")
        wait_for(lambda: rows() == 3)
        wait_for(lambda: transport.stats("work").dead == 3)

    assert not Group.objects.filter(name="uncommitted").exists()
    letters = transport.dead_letters("work").items
    assert {letter.actor for letter in letters} == {"leaves"}
    assert {letter.exception for letter in letters} == {"OpenTransaction" if ends == "returns" else "ValueError"}


def test_time_limits_amid_transactions_take_no_later_row(
    yard_broker: Callable[..., RedisBroker], run_worker: Any
) -> None:
    broker = yard_broker(small_yard(max_retries=0))

    @dramatiq.actor(broker=broker, queue_name="work", time_limit=50)
    def busy() -> None:
        while True:
            with transaction.atomic():
                pass

    @dramatiq.actor(broker=broker, queue_name="work")
    def writes(name: str) -> None:
        Group.objects.create(name=name)

    transport = facilities(broker).transport
    with run_worker("work", broker=broker, threads=1):
        for number in range(10):
            busy.send()
            writes.send(f"row-{number}")
        wait_for(lambda: rows() == 10)
        wait_for(lambda: transport.stats("work").dead == 10)

    assert {letter.exception for letter in transport.dead_letters("work").items} == {"TimeLimitExceeded"}


def test_language_and_time_zone_end_with_the_attempt(yard_broker: Callable[..., RedisBroker], run_worker: Any) -> None:
    broker = yard_broker(small_yard())
    seen: list[tuple[str | None, str]] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def changes() -> None:
        seen.append((translation.get_language(), timezone.get_current_timezone_name()))
        translation.activate("fr")
        timezone.activate("Asia/Tokyo")

    with run_worker("work", broker=broker, threads=1):
        changes.send()
        changes.send()
        wait_for(lambda: len(seen) == 2)

    assert seen[0] == seen[1]
    assert seen[0][1] != "Asia/Tokyo"
