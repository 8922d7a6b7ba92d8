"""The functions that tests call. All of them need the broker in memory, see :class:`in_memory`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import dramatiq
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import UnknownQueue
from switchyard.broker.queue import codec
from switchyard.broker.queue.json_body import kind_of
from switchyard.broker.shapes import DeadLetter
from switchyard.conf import declared_yard
from switchyard.middleware.arguments import require_named, signature_of
from switchyard.testing.broker import SentMessage
from switchyard.testing.commits import advance_with_ticks, run_callbacks, seconds_of
from switchyard.testing.running import TestedAttempt
from switchyard.testing.yard import active

LONGEST_VALUE = 200
MOST_SHOWN = 10

Call = dict[str, Any]


def actor_for(given: Any) -> Actor[..., Any]:
    """Return an actor, or the actor that runs a task of Django's task API.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, Actor):
        return given
    path = getattr(given, "module_path", None)
    if isinstance(path, str):
        found = dramatiq.get_broker().actors.get(path)
        if found is not None:
            return found
        raise TypeError(f"no actor runs the task {path}: is its backend Switchyard's, and was it declared?")
    raise TypeError(f"expected an actor or a task, not {kind_of(given)}: pass the decorated function itself")


def call_of(actor: Actor[..., Any], message: Message[Any]) -> Call:
    """Return the arguments of a message by name; those that fit no signature by place."""
    try:
        bound = signature_of(actor.fn).bind(*message.args, **message.kwargs)
    except TypeError:
        return {**{str(place): value for place, value in enumerate(message.args)}, **message.kwargs}
    call: Call = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            call.update(value)
        else:
            call[name] = list(value) if isinstance(value, tuple) else value
    return call


def described(sent: SentMessage) -> str:
    """Return a sent message as a call, with its queue and delay."""
    message = sent.message
    call = ", ".join([*map(shown, message.args), *(f"{name}={shown(value)}" for name, value in message.kwargs.items())])
    delayed = "" if not sent.delay_ms else f", due after {sent.delay_ms / 1000:g} s"
    return f"{message.actor_name}({call}) in {message.queue_name!r}{delayed}"


def listed(sent: Iterable[SentMessage]) -> str:
    """Return what was sent, one call a line."""
    lines = [f"  {described(one)}" for one in sent]
    if not lines:
        return "Nothing was enqueued in this test."
    more = [f"  … and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    return "\n".join(["Enqueued in this test:", *lines[:MOST_SHOWN], *more])


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def enqueued(actor: Actor[..., Any] | None = None) -> list[Message[Any]]:
    """Return the messages that wait or are scheduled, in the order in which they run; of one actor, or of all."""
    wanted = None if actor is None else actor_for(actor).actor_name
    run_callbacks()
    waiting = active().yard.broker.waiting.values()
    found = [one.message() for one in sorted(waiting, key=lambda one: (one.ready_ms > now_ms(), one.place))]
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
    actor = actor_for(actor)
    if kwargs is not None:
        require_named(actor, kwargs)
    call = None if args is None and kwargs is None else _as_sent(actor, tuple(args or ()), dict(kwargs or {}))
    compared = [(sent, _differences(sent, actor, call, queue)) for sent in broker.sent]
    found = [sent.message for sent, different in compared if not different]
    if found if count is None else len(found) == count:
        return found
    shown_call = "..." if call is None else ", ".join(f"{name}={shown(value)}" for name, value in call.items())
    expected = f"{actor.actor_name}({shown_call})" + ("" if queue is None else f" in {queue!r}")
    times = "at least once" if count is None else f"{count} times" if count != 1 else "once"
    lines = [f"{expected} was expected {times}, it was enqueued {len(found)} times."]
    others = [one for one in compared if one[1]]
    if others and (count is None or len(found) < count):
        nearest, different = min(others, key=lambda one: (one[0].message.actor_name != actor.actor_name, len(one[1])))
        lines.append(f"The nearest: {described(nearest)}: {'; '.join(different)}.")
    raise AssertionError("\n".join([*lines, listed(broker.sent)]))


def _as_sent(actor: Actor[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return a call as a message carries it: a tuple becomes a list, a date text."""
    message = actor.message_with_options(args=args, kwargs=kwargs)
    body = codec.entry_of(message, {actor.actor_name: actor}).body
    return call_of(actor, codec.decode(body, message_id=message.message_id, lane=message.queue_name))


def _differences(sent: SentMessage, actor: Actor[..., Any], call: Call | None, queue: str | None) -> list[str]:
    """Return how a message of any actor differs from the expected call, in words; ``None`` expects any call."""
    found = []
    if sent.message.actor_name != actor.actor_name:
        found.append(f"its actor is {sent.message.actor_name}, not {actor.actor_name}")
    if queue is not None and sent.message.queue_name != queue:
        found.append(f"its queue is {sent.message.queue_name!r}, not {queue!r}")
    if call is None:
        return found
    there = call_of(actor, sent.message)
    for name in dict.fromkeys([*call, *there]):
        if name not in there:
            found.append(f"it has no {name}, expected {shown(call[name])}")
        elif name not in call:
            found.append(f"it has {name}={shown(there[name])}, which was not expected")
        elif there[name] != call[name]:
            found.append(f"{name} is {shown(there[name])}, not {shown(call[name])}")
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
    retry_lanes = {declared.name: declared.retry_lane for declared in declared_yard().queues}
    if queue is not None and queue not in retry_lanes:
        raise UnknownQueue(queue, tuple(retry_lanes))
    lanes = None if queue is None else (queue, retry_lanes[queue])
    attempts = switch.yard.runner.run_ready(lanes, raises=raises)
    while delayed and (
        later := [one.ready_ms for one in switch.yard.broker.in_turn() if lanes is None or one.lane in lanes]
    ):
        switch.clock.advance(max(min(later) - now_ms(), 0) / 1000)
        attempts += switch.yard.runner.run_ready(lanes, raises=raises)
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
