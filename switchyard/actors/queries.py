"""Actors of this code, for pages and commands."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import Any

import dramatiq
from dramatiq.actor import Actor

from switchyard.broker.errors import NotFound
from switchyard.broker.redis.own_keys import number
from switchyard.conf import declared_yard
from switchyard.jobs.queries import families
from switchyard.middleware.errors import place_of
from switchyard.middleware.options import rules_of


@dataclass(frozen=True, slots=True)
class DeclaredOption:
    """One option of an actor: its value for JSON and as Python writes it, and what it takes, in words ("" for none)."""

    name: str
    value: Any
    text: str
    rule: str


@dataclass(frozen=True, slots=True)
class ActorFacts:
    """An actor with its place in the code (file and line of its first decorator) and in the yard.

    ``options`` differ from the default; a job is interrupted after ``soft_limit_ms``.
    """

    name: str
    queue: str
    pools: tuple[str, ...]
    module: str
    place: str
    docstring: str
    options: tuple[DeclaredOption, ...]
    soft_limit_ms: int | None

    @property
    def summary(self) -> str:
        return self.docstring.partition("\n")[0]


def all_actors() -> list[ActorFacts]:
    """Return the facts of every actor, by name."""
    return [facts_of(actor) for _, actor in sorted(dramatiq.get_broker().actors.items())]


def find_actor(name: str) -> Actor[..., Any]:
    """Return an actor by its name; ``NotFound`` when this code has none."""
    actors: dict[str, Actor[..., Any]] = dramatiq.get_broker().actors
    if name not in actors:
        near = difflib.get_close_matches(name, list(actors), n=1)
        remedy = f"did you mean {near[0]}?" if near else "see manage.py switchyard actors list"
        raise NotFound(f"actor {name:.200}: this code has no actor of that name; {remedy}")
    return actors[name]


def facts_of(actor: Actor[..., Any]) -> ActorFacts:
    return ActorFacts(
        name=actor.actor_name,
        queue=actor.queue_name,
        pools=tuple(pool.name for pool in declared_yard().pools_of(actor.queue_name)),
        module=actor.fn.__module__,
        place=place_of(actor.fn),
        docstring=inspect.getdoc(actor.fn) or "",
        options=tuple(_options_of(actor)),
        soft_limit_ms=actor.options.get("time_limit"),
    )


def _options_of(actor: Actor[..., Any]) -> list[DeclaredOption]:
    rules, limits = rules_of(actor.broker), {queue.name: queue.soft_limit_ms for queue in declared_yard().queues}
    options: dict[str, Any] = dict(actor.options)
    if "time_limit" in options and options["time_limit"] == limits.get(actor.queue_name, -1):
        del options["time_limit"]  # as its middleware took it from the queue
    if actor.priority:
        options["priority"] = actor.priority
    return [
        DeclaredOption(name, _plain(value), _written(value), rules[name].text(actor) if name in rules else "")
        for name, value in sorted(options.items())
    ]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else _written(value)


def _written(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    if isinstance(value, tuple) and value and all(isinstance(each, type) for each in value):
        return f"({', '.join(each.__qualname__ for each in value)},)"
    text = repr(value)
    return f'cron("{value}")' if text.startswith("<CronSpec") else text


def yields_of(actor: str) -> int:
    """Return how many sends of an actor met a unique key which another unfinished message held."""
    asked = families()
    found = asked[0].calls.look([("HGET", family.keys.yields, actor) for family in asked]) if asked else []
    return sum(number(count, family.keys.yields) for family, count in zip(asked, found, strict=True))
