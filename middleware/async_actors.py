"""Async actors: run on an event loop that a worker starts; a call outside of a worker is refused with what to write."""

from __future__ import annotations

import functools
from inspect import iscoroutinefunction
from typing import Any

from dramatiq.actor import Actor
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.middleware import AsyncIO

from switchyard.middleware.errors import MissingWorker


class AsyncActors(AsyncIO):
    """Dramatiq's event loop for a worker's async actors. Where none runs their call raises ``MissingWorker``."""

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Check the calls of an async actor. Dramatiq has wrapped its function already, to wait for the event loop."""
        run, function = actor.fn, getattr(actor.fn, "__wrapped__", None)
        if not iscoroutinefunction(function):
            return

        @functools.wraps(function)
        def run_in_worker(*args: Any, **kwargs: Any) -> Any:
            if get_event_loop_thread() is None:
                raise MissingWorker(actor.actor_name, function)
            return run(*args, **kwargs)

        actor.fn = run_in_worker
