"""The functions that tests call. All of them need the broker in memory, see :class:`in_memory`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import UnknownQueue
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.topology import lane_of_name
from switchyard.conf import declared_yard
from switchyard.testing.asserting import Expectation, actor_for, listed, not_enqueued
from switchyard.testing.calls import StoredMessage
from switchyard.testing.clock import advance_with_ticks, seconds_of
from switchyard.testing.commits import run_callbacks
from switchyard.testing.running import TestedAttempt
from switchyard.testing.switch import active


def enqueued(actor: Actor[..., Any] | None = None) -> list[Message[Any]]:
    """Return the messages that wait or are scheduled, in the order in which they run; of one actor, or of all."""
    broker = active().yard.broker
    wanted = None if actor is None else actor_for(actor).actor_name
    run_callbacks()
    stored = sorted(broker.waiting.values(), key=lambda one: (one.ready_ms > now_ms(), one.place))
    found = [one.message() for one in stored]
    return [message for message in found if wanted is None or message.actor_name == wanted]


def assert_enqueued(
    actor: Actor[..., Any],
    *,
    args: Sequence[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    queue: str | None = None,
    count: int | None = None,
) -> list[Message[Any]]:
    """Assert that an actor was sent in this test, whether it has run meanwhile or not, and return its messages.

    What was registered with ``transaction.on_commit`` counts: its callbacks run first, unless the test is inside of a
    transaction of its own.

    Args:
        args, kwargs: The whole call, compared as it would arrive, by place or by name. By default any call.
        queue: Name of the queue it was sent to. By default any.
        count: How often. By default at least once.

    Raises:
        AssertionError: it was not; with what was sent, and what differs in the nearest of it.
    """
    broker = active().yard.broker
    run_callbacks()
    expected = Expectation(actor, args, kwargs, queue)
    found = [sent.message for sent in broker.sent if expected.matches(sent)]
    if not found if count is None else len(found) != count:
        raise not_enqueued(expected, broker.sent, count)
    return found


def assert_nothing_enqueued(actor: Actor[..., Any] | None = None) -> None:
    """Assert that nothing was sent in this test; or nothing of one actor.

    Raises:
        AssertionError: something was.
    """
    broker = active().yard.broker
    wanted = None if actor is None else actor_for(actor).actor_name
    run_callbacks()
    found = [sent for sent in broker.sent if wanted is None or sent.message.actor_name == wanted]
    if found:
        subject = "" if wanted is None else f" for {wanted}"
        raise AssertionError(f"nothing was expected to be enqueued{subject}.\n{listed(found)}")


def run_enqueued(*, queue: str | None = None, raises: bool = True, delayed: bool = False) -> list[TestedAttempt]:
    """Run what waits, and what that sends, in this thread; return the attempts in order.

    Runs the callbacks of ``transaction.on_commit`` first, as :func:`assert_enqueued`. Messages run by priority, then
    in the order in which they became ready.

    Args:
        queue: Run only messages of this queue and of its retry lane.
        raises: Raise what an actor raised, after its attempt has ended as in production: its retry waits, or its dead
            letter is there. With ``False`` failures only take their way: retries, dead letters, alerts.
        delayed: Also run what is due later, such as retries, and move the time on to it; see :func:`advance`.

    Raises:
        AssertionError: messages go on sending messages.
        UnknownQueue: the yard declares no such queue.
    """
    switch = active()
    names = tuple(declared.name for declared in declared_yard().queues)
    if queue is not None and queue not in names:
        raise UnknownQueue(queue, names)

    def wanted(stored: StoredMessage) -> bool:
        return queue is None or lane_of_name(stored.lane)[0] == queue

    attempts = switch.yard.runner.run_ready(wanted, raises=raises)
    while delayed and (later := [one.ready_ms for one in switch.yard.broker.waiting.values() if wanted(one)]):
        switch.clock.advance(max(min(later) - now_ms(), 0) / 1000)
        attempts += switch.yard.runner.run_ready(wanted, raises=raises)
    return attempts


def advance(seconds: float | timedelta, *, schedules: bool = True) -> None:
    """Move the time of this process on until the end of the test: delays, retries, rate limits, ``timezone.now()``.

    Nothing runs by itself: :func:`run_enqueued` runs what is due then. Needs the package ``time-machine``.

    Args:
        seconds: 0 or more; a ``timedelta`` as well.
        schedules: Send periodic actors at each of their times on the way, as the scheduler does; pauses are not read.

    Raises:
        RuntimeError: ``time-machine`` is not installed. TypeError, ValueError: it is no such time.
    """
    switch = active()
    seconds = seconds_of(seconds)
    if schedules:
        run_callbacks()
        advance_with_ticks(switch.clock, seconds)
    else:
        switch.clock.advance(seconds)


def dead_letters(queue: str | None = None) -> list[DeadLetter]:
    """Return the dead letters of a queue, or of all, newest first."""
    yard = active().yard
    names = [one.name for one in yard.yard.queues] if queue is None else [yard.yard.queue_of(queue).name]
    found = [letter for name in names for letter in yard.dead_lists.page(name, cursor=0, limit=10_000).items]
    return sorted(found, key=lambda letter: letter.died_at, reverse=True)
