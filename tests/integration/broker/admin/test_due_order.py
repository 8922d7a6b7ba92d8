"""The walk over scheduled messages of many queues in the order of their due time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dramatiq
import pytest

from switchyard.broker.admin import scheduled
from switchyard.broker.admin.scheduled import next_due
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis_broker import RedisBroker
from switchyard.schedules.runner import finish_moves
from tests.waiting import wait_for

HOUR_MS = 3_600_000
NAMES = ("first", "second", "third")


def families_of(broker: RedisBroker) -> list[QueueOperations]:
    return [broker.lane(name)[0] for name in NAMES]


def schedule(broker: RedisBroker, due: Sequence[int]) -> list[str]:
    """Send messages to the queues in turn, due at given times; return their ids in the order in which they are due."""
    families, sent = families_of(broker), []
    for number, due_at in enumerate(due):
        family = families[number % len(families)]
        message = broker.actors[f"job_{family.keys.queue}"].send_with_options(args=(number,), delay=HOUR_MS)
        family.calls.command("ZADD", family.keys.due("live"), "XX", due_at, message.message_id)
        sent.append((due_at, message.message_id))
    return [id_ for _, id_ in sorted(sent)]


def test_what_a_clock_ahead_has_delayed_is_due_a_delay_after_now(
    broker: RedisBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First sends and retries. Times that a person gave, and delays of a right clock, stay as they are."""
    family, day_ms = families_of(broker)[0], 24 * HOUR_MS
    monkeypatch.setattr("switchyard.schedules.runner.declared_yard", lambda: facilities(broker).yard)
    monkeypatch.setattr(dramatiq, "get_broker", lambda: broker)

    @dramatiq.actor(queue_name="first", broker=broker, max_retries=3, min_backoff=HOUR_MS, max_backoff=HOUR_MS)
    def fails() -> None:
        raise ValueError

    names = ("sent", "retried", "right", "moved", "given")
    for name in ("sent", "right", "moved"):
        broker.enqueue(broker.actors["job_first"].message(0).copy(message_id=name), delay=HOUR_MS)
    given = broker.actors["job_first"].message_with_options(args=(0,), eta=now_ms() + day_ms)
    broker.enqueue(given.copy(message_id="given"))
    broker.enqueue(fails.message().copy(message_id="retried"))
    key = {name: family.keys.due("retry" if name == "retried" else "live") for name in names}

    def due_in_ms(name: str) -> int | None:
        found = family.calls.command("ZSCORE", key[name], name)
        return None if found is None else int(float(found)) - now_ms()

    with run_worker(broker=broker):
        wait_for(lambda: due_in_ms("retried") and due_in_ms("given"))
    before = {name: due_in_ms(name) or 0 for name in names}
    for name in ("sent", "retried", "moved"):
        family.calls.command("ZINCRBY", key[name], day_ms, name)
    same: Any = ([0], {})
    scheduled.amend([family], "moved", expected=same, arguments=same, due_at_ms=now_ms() + day_ms)

    family.lapsed()
    at_rest = finish_moves()
    family.calls.command("SET", family.keys.swept, now_ms() + day_ms)
    family.lapsed()
    corrected = [finish_moves(), finish_moves()]

    after = {name: due_in_ms(name) or 0 for name in names}
    assert at_rest == 0 and corrected == [2, 0]
    assert after == {name: pytest.approx(before[name] if name != "moved" else day_ms, abs=60_000) for name in names}
    assert before["retried"] > HOUR_MS / 3


def walked(pages: Iterator[list[Any]]) -> list[str]:
    return [seen.id for page in pages for seen in page]


def test_messages_of_all_queues_come_in_the_order_of_their_due_time(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduled, "AT_ONCE", 3)
    now = now_ms()
    # Most are due in the same millisecond, as those for midnight are.
    due = [now + HOUR_MS] * 20 + [now + shift * 60_000 for shift in range(12)] + [now + HOUR_MS] * 9
    ordered = schedule(broker, due)

    pages = list(next_due(families_of(broker), after=None, count=4))

    assert walked(iter(pages)) == ordered
    assert [message.due_at for page in pages for message in page] == sorted(due)
    assert {message.queue for page in pages for message in page} == set(NAMES)
    for place in (0, 5, 11, 12, 30, len(due) - 1):
        after = (sorted(due)[place], ordered[place])
        assert walked(next_due(families_of(broker), after=after, count=7)) == ordered[place + 1 :]


def test_what_starts_between_two_pages_moves_no_other_past_the_reader(broker: RedisBroker) -> None:
    now = now_ms()
    ordered = schedule(broker, [now + shift * 60_000 for shift in range(9)])
    first = next(next_due(families_of(broker), after=None, count=3))
    for family in families_of(broker):
        family.calls.command("ZREM", family.keys.due("live"), *ordered[:3])

    rest = walked(next_due(families_of(broker), after=(first[-1].due_at or 0, first[-1].id), count=3))

    assert [seen.id for seen in first] + rest == ordered


def test_a_page_of_a_long_schedule_costs_few_calls(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    family = families_of(broker)[0]
    due_at = now_ms() + HOUR_MS
    ids = [f"{number:06}" for number in range(20_000)]
    for start in range(0, len(ids), 1_000):
        chunk = ids[start : start + 1_000]
        family.calls.command("ZADD", family.keys.due("live"), *(word for id_ in chunk for word in (due_at, id_)))
        family.calls.command("HSET", family.keys.bodies, *(word for id_ in chunk for word in (id_, "{}")))
    asked: list[Any] = []
    whole, single = family.calls.pipeline, family.calls.command
    monkeypatch.setattr(family.calls, "pipeline", lambda commands: asked.append(commands) or whole(commands))
    monkeypatch.setattr(family.calls, "command", lambda *words: asked.append(words) or single(*words))

    page = next(next_due(families_of(broker), after=(due_at, ids[14_999]), count=50))

    assert [seen.id for seen in page] == ids[15_000:15_050]
    # A search by halves among 20,000 of one millisecond, one read of every schedule, one of the bodies.
    assert len(asked) <= 18
