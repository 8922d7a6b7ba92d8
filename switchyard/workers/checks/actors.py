"""Mistakes in declared actors: their queues and their time limits."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from dramatiq.actor import Actor
from dramatiq.broker import Broker

from switchyard.broker.topology import Queue, Yard
from switchyard.broker.validation import is_duration
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.places import place_of
from switchyard.middleware.time_limits import TimeLimits
from switchyard.workers.checks.queues import TOPOLOGY

AnyActor = Actor[Any, Any]

# Threads are interrupted within a quarter of a second, so nobody needs a shorter limit.
LEAST_LIMIT_MS = 1_000
# Name that Python gives every function without one.
LAMBDA = "<lambda>"


def undeclared_queues(yard: Yard, actors: Iterable[AnyActor]) -> list[CheckMessage]:
    """E001: an actor on a queue that the yard does not declare, or straight on a retry lane."""
    names = [queue.name for queue in yard.queues]
    dead = {queue.dead_list for queue in yard.queues}
    found: list[CheckMessage] = []
    for actor in actors:
        if actor.queue_name in names or actor.queue_name in dead:
            continue
        hint = f"Use one of {', '.join(names)}, or declare the queue in {TOPOLOGY}."
        if actor.queue_name in yard.lanes:
            hint = f"Use queue_name={yard.queue_of(actor.queue_name).name!r}; only retries go to the retry lane."
        found.append(
            Error(
                f"runs on queue {actor.queue_name!r}, which the yard does not declare",
                hint=hint,
                obj=subject_of(actor),
                id="switchyard.E001",
            )
        )
    return found


def missing_time_limits(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """E002: an actor that may run for ever."""
    enforced = "time_limit" in broker.actor_options
    found: list[CheckMessage] = []
    for actor, queue in _placed(yard, broker):
        limit = _time_limit_ms(actor, queue)
        if not enforced:
            fact = "no middleware of the broker enforces time limits"
            hint = "Add TimeLimits to the middleware in switchyard/wiring.py."
        elif limit is None:
            fact = f"its time_limit is {actor.options.get('time_limit')!r}, so it may run for ever"
            hint = (
                f"Remove time_limit to inherit the {queue.soft_limit_ms} ms of queue {queue.name}, "
                "or set milliseconds above 0."
            )
        else:
            continue
        found.append(Error(fact, hint=hint, obj=subject_of(actor), id="switchyard.E002"))
    return found


def limits_over_the_hard_limit(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """E003: an actor whose time limit is not below its queue's hard limit, so that its child is killed first."""
    found: list[CheckMessage] = []
    for actor, queue in _placed(yard, broker):
        limit = _time_limit_ms(actor, queue)
        if limit is not None and limit >= queue.hard_limit_ms:
            found.append(
                Error(
                    f"its time_limit is {limit:.15g} ms, "
                    f"the hard limit of queue {queue.name} is {queue.hard_limit_ms} ms",
                    hint=f"Lower time_limit below {queue.hard_limit_ms}, split the work, "
                    f"or raise hard_limit_ms in {TOPOLOGY}.",
                    obj=subject_of(actor),
                    id="switchyard.E003",
                )
            )
    return found


def consumed_dead_lists(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """E011: a dead list that an actor runs on or that was declared with the broker, so that workers consume it."""
    dead = {queue.dead_list: queue.name for queue in yard.queues}
    found: list[CheckMessage] = [
        Error(
            f"runs on {actor.queue_name!r}, the dead list of queue {dead[actor.queue_name]}",
            hint=f"Use queue_name={dead[actor.queue_name]!r}; messages come to the dead list by themselves.",
            obj=subject_of(actor),
            id="switchyard.E011",
        )
        for actor in broker.actors.values()
        if actor.queue_name in dead
    ]
    used = {actor.queue_name for actor in broker.actors.values()}
    found += [
        Error(
            f"is declared with the broker, but is the dead list of queue {dead[name]}; every worker would consume it",
            hint=f"Remove the call of declare_queue({name!r}).",
            obj=f"queue {name}",
            id="switchyard.E011",
        )
        for name in sorted(broker.get_declared_queues())
        if name in dead and name not in used
    ]
    return found


def unknown_callbacks(broker: Broker) -> list[CheckMessage]:
    """E022: an actor whose ``on_success``, ``on_failure`` or ``on_retry_exhausted`` names no actor."""
    found: list[CheckMessage] = []
    for actor in broker.actors.values():
        for option in ("on_success", "on_failure", "on_retry_exhausted"):
            name = actor.options.get(option)
            if name is None or name in broker.actors:
                continue
            near = difflib.get_close_matches(name, broker.actors, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Declare it in an actors.py, or leave the option out."
            fact = f"{option} is {name!r}: no actor is called so"
            found.append(Error(fact, hint=hint, obj=subject_of(actor), id="switchyard.E022"))
    return found


def limits_in_seconds(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """W020: a time limit, of an actor or of a queue, that was most likely meant in seconds."""
    found: list[CheckMessage] = [
        Warning(
            f"its soft_limit_ms is {queue.soft_limit_ms} ms, after which every attempt fails",
            hint=f"For {queue.soft_limit_ms} s write soft_limit_ms={queue.soft_limit_ms * 1_000:_} in {TOPOLOGY}.",
            obj=f"queue {queue.name}",
            id="switchyard.W020",
        )
        for queue in yard.queues
        if queue.soft_limit_ms < LEAST_LIMIT_MS
    ]
    inherited = {queue.name: queue.soft_limit_ms for queue in yard.queues}
    found += [
        Warning(
            f"its time_limit is {limit:g} ms, after which every attempt fails",
            hint=f"Time limits are milliseconds: for {limit:g} s write time_limit={int(limit * 1_000):_}.",
            obj=subject_of(actor),
            id="switchyard.W020",
        )
        for actor in broker.actors.values()
        if (limit := _milliseconds(actor.options.get("time_limit"))) is not None
        and limit < LEAST_LIMIT_MS
        and limit != inherited.get(actor.queue_name)
    ]
    return found


def methods(broker: Broker) -> list[CheckMessage]:
    """W022: an actor that is a method, so that each send would need an instance, or a class."""
    found: list[CheckMessage] = [
        Warning(
            "is a class: a job makes an instance of it, and calls none of its methods",
            hint="Declare a function, or a class of dramatiq.GenericActor with perform.",
            obj=subject_of(actor),
            id="switchyard.W022",
        )
        for actor in broker.actors.values()
        if inspect.isclass(actor.fn)
    ]
    return found + [
        Warning(
            f"is a method: its first parameter is {first!r}, which no message can carry",
            hint="Declare a function outside of the class, and send it the primary key of the object.",
            obj=subject_of(actor),
            id="switchyard.W022",
        )
        for actor in broker.actors.values()
        if (first := next(iter(signature_of(actor.fn).parameters), "")) in ("self", "cls")
    ]


def hidden_actors(broker: Broker) -> list[CheckMessage]:
    """W022: an actor whose name holds a function that another decorator made of it, and that has no ``send``."""
    return [
        Warning(
            f"another decorator is above @dramatiq.actor: {name} is a plain function, so {name}.send(...) fails",
            hint="Put @dramatiq.actor(...) above the other decorators.",
            obj=subject_of(actor),
            id="switchyard.W022",
        )
        for actor in broker.actors.values()
        if (name := _name_of_wrapper(actor))
    ]


def lambdas(broker: Broker) -> list[CheckMessage]:
    """W022: an actor that is a lambda and has no name of its own."""
    return [
        Warning(
            "is a lambda without a name: a second one is refused, and its messages say nothing of what they do",
            hint="Declare a function with def, or write actor_name=...",
            obj=subject_of(actor),
            id="switchyard.W022",
        )
        for actor in broker.actors.values()
        if actor.actor_name == LAMBDA
    ]


def generators(broker: Broker) -> list[CheckMessage]:
    """W022: an actor that is a generator function: calling it runs none of its code."""
    return [
        Warning(
            "is a generator: it has a yield, so its jobs succeed and none of its code runs",
            hint="Leave yield out; return a list, or send a job for each part.",
            obj=subject_of(actor),
            id="switchyard.W022",
        )
        for actor in broker.actors.values()
        if inspect.isgeneratorfunction(actor.fn) or inspect.isasyncgenfunction(actor.fn)
    ]


def endless_actors(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """W023: an actor that declares no time limit, and is interrupted before its queue's hard limit all the same."""
    endless = {
        name: limit
        for entry in broker.middleware
        if isinstance(entry, TimeLimits)
        for name, limit in entry.endless.items()
    }
    return [
        Warning(
            f"its time_limit is {endless[actor.actor_name]!r}; it ends after {_time_limit_ms(actor, queue):,} ms, "
            f"because the hard limit of queue {queue.name} is {queue.hard_limit_ms:,} ms",
            hint=f"Write the milliseconds that it may take, or raise hard_limit_ms in {TOPOLOGY}.",
            obj=subject_of(actor),
            id="switchyard.W023",
        )
        for actor, queue in _placed(yard, broker)
        if actor.actor_name in endless
    ]


def coroutines_among_greenlets(yard: Yard, broker: Broker) -> list[CheckMessage]:
    """E033: an async actor whose messages a pool of greenlets may run: its event loop needs threads."""
    return [
        Error(
            f"is async, and pool {pools[0].name} of kind gevent runs {lane}; its event loop needs threads",
            hint=f"Move it to a queue of another pool, write it without async, or change the pool in {TOPOLOGY}.",
            obj=subject_of(actor),
            id="switchyard.E033",
        )
        for actor, queue in _placed(yard, broker)
        if inspect.iscoroutinefunction(inspect.unwrap(actor.fn))
        for lane in (queue.name, queue.retry_lane)
        if (pools := [pool for pool in yard.pools_of(lane) if pool.kind == "gevent"])
    ]


def subject_of(actor: AnyActor) -> str:
    """Return an actor's name with the place where it is declared."""
    return f"actor {actor.actor_name} ({place_of(actor.fn)})"


def _name_of_wrapper(actor: AnyActor) -> str:
    """Return the name that holds a function made of the actor where it was declared, else ""."""
    name = getattr(actor.fn, "__name__", "")
    held = getattr(sys.modules.get(actor.fn.__module__), name, None)
    wraps = isinstance(held, FunctionType) and inspect.unwrap(held, stop=lambda function: function is actor) is actor
    return name if wraps else ""


def _placed(yard: Yard, broker: Broker) -> list[tuple[AnyActor, Queue]]:
    """Return the actors whose queue is declared, each with it."""
    queues = {queue.name: queue for queue in yard.queues}
    return [(actor, queues[actor.queue_name]) for actor in broker.actors.values() if actor.queue_name in queues]


def _time_limit_ms(actor: AnyActor, queue: Queue) -> float | None:
    """Return the time limit of an actor in milliseconds; ``None`` without one."""
    return _milliseconds(actor.options.get("time_limit", queue.soft_limit_ms))


def _milliseconds(limit: Any) -> float | None:
    """Return an option's value if it is a duration."""
    return limit if is_duration(limit) else None
