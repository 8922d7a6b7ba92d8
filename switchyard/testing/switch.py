"""The switch to the broker in memory: for a block, a test, or every test of a class."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import dramatiq
from django.test.utils import TestContextDecorator
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from switchyard.conf import declared_yard
from switchyard.testing.clock import Clock
from switchyard.testing.commits import watched_commits
from switchyard.testing.yard import MemoryYard, build


@dataclass(frozen=True, slots=True)
class _Built:
    """A broker in memory that was built for a real one, with the middleware and the actors that it had then."""

    real: Broker
    listed: tuple[Middleware, ...]
    memory: MemoryYard
    known: frozenset[str]


_built: dict[int, _Built] = {}
_active: list[in_memory] = []


class in_memory(TestContextDecorator):
    """Replace the broker by one in memory, empty at the start: no server is needed, nothing leaves the process.

    A context manager, and a decorator of test functions and of classes of Django's ``TestCase``. Messages pass the
    checks, the encoding and the middleware of the real broker. They wait until
    :func:`switchyard.testing.run_enqueued` runs them in the test's thread, where they see the rows of the
    test's transaction.

    Args:
        eager: Run each message where it is sent, for debugging: a failure is raised by ``send``. Delayed messages wait.
    """

    def __init__(self, *wrong: Any, eager: bool = False) -> None:
        if wrong:
            raise TypeError(
                "in_memory takes nothing by place: write @in_memory() with brackets, or in_memory(eager=True)"
            )
        super().__init__()
        self._eager = eager

    def enable(self) -> MemoryYard:
        """Switch to the broker in memory."""
        self._real = dramatiq.get_broker()
        self.yard = _yard_of(self._real)
        self._actors = dict(self._real.actors)
        for actor in self._actors.values():
            actor.broker = self.yard.broker
        dramatiq.set_broker(self.yard.broker)
        self.clock = Clock()
        self._commits = watched_commits(at_once=self._eager)
        self._commits.__enter__()
        self.yard.broker.on_enqueue = self.yard.runner.run_ready if self._eager else lambda: None
        _active.append(self)
        return self.yard

    def disable(self) -> None:
        """Switch back. Actors of modules that were loaded meanwhile stay, others are forgotten."""
        _active.remove(self)
        self._commits.__exit__(None, None, None)
        self.clock.stop()
        self.yard.runner.close()
        self.yard.clear()
        dramatiq.set_broker(self._real)
        declared = [actor for name, actor in self._real.actors.items() if name not in self._actors]
        for actor in [*self._actors.values(), *declared]:
            actor.broker = self._real
        for actor in declared:
            del self._real.actors[actor.actor_name]
            if getattr(sys.modules.get(actor.fn.__module__), actor.fn.__name__, None) is actor:
                self._real.declare_actor(actor)


def active() -> in_memory:
    """Return the switch that is in force.

    Raises:
        RuntimeError: there is none.
    """
    if not _active:
        raise RuntimeError(
            "the broker is not in memory here: decorate the test or its class with @in_memory(), use it as "
            "`with in_memory():`, or with pytest the fixture switchyard_broker or `switchyard_in_memory = true` "
            "in pytest's settings"
        )
    return _active[-1]


def _yard_of(real: Broker) -> MemoryYard:
    """Return the broker in memory for a real one, built once in a process, empty and with all actors."""
    listed = tuple(real.middleware)
    built = _built.get(id(real))
    is_same = built is not None and built.real is real and built.listed == listed
    if built is None or not is_same or built.memory.yard != declared_yard():
        built = _Built(real, listed, build(real), frozenset())
    built.memory.clear()
    built.memory.adopt(real.actors, known=built.known)
    _built[id(real)] = replace(built, known=frozenset(real.actors))
    return built.memory
