"""Hooks of a broker's middleware: only overridden ones are called, and in the way that costs least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dramatiq.broker import Broker
from dramatiq.middleware import Middleware, MiddlewareError

from switchyard.broker.errors import SpoiledAttempt

Hook = Callable[..., None]

# Signals of a message that has started: its first hook has compared the whole list.
BEFORE_SINCE_START: Final = frozenset({"ack"})
AFTER_SINCE_START: Final = frozenset({"process_message", "ack"})


class Hooks:
    """Overridden hooks of a list of middleware, by signal. The cache is rebuilt when the list has changed.

    There are about thirty middleware and eight signals for each message; calling every no-op method costs more than
    running a short task. So does passing arguments on with ``*`` and ``**``: 0.09 µs more for each hook that gets a
    message, 0.37 for one that gets its result as well, of 0.05. The frequent signals pass theirs one by one. Middleware
    with ``failures_only`` is not called when an actor has returned.
    """

    def __init__(self) -> None:
        self._of: list[Middleware] = []
        self._before: dict[str, list[tuple[Hook, Middleware]]] = {}
        self._after: dict[str, list[tuple[Hook, Middleware]]] = {}
        self._after_success: dict[str, list[tuple[Hook, Middleware]]] = {}

    def before(self, signal: str, middleware: list[Middleware]) -> list[tuple[Hook, Middleware]]:
        """Return the hooks ``before_<signal>`` that are not the base class's empty ones, first to last."""
        if len(self._of) != len(middleware) if signal in BEFORE_SINCE_START else self._of != middleware:
            self._forget(middleware)
        hooks = self._before.get(signal)
        if hooks is None:
            hooks = self._before[signal] = _named(f"before_{signal}", middleware)
        return hooks

    def after(
        self, signal: str, middleware: list[Middleware], *, succeeded: bool = False
    ) -> list[tuple[Hook, Middleware]]:
        """Return the hooks ``after_<signal>`` that are not the base class's empty ones, last to first."""
        if len(self._of) != len(middleware) if signal in AFTER_SINCE_START else self._of != middleware:
            self._forget(middleware)
        known = self._after_success if succeeded else self._after
        hooks = known.get(signal)
        if hooks is None:
            called = [entry for entry in middleware if not (succeeded and getattr(entry, "failures_only", False))]
            hooks = known[signal] = _named(f"after_{signal}", called)[::-1]
        return hooks

    def call_before(self, broker: Broker, signal: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call the hooks ``before_<signal>``, first to last; raise a ``MiddlewareError``, log any other exception."""
        if not (hooks := self.before(signal, broker.middleware)):
            return
        count = 0 if kwargs else len(args)
        first, second = args[0] if count else None, args[1] if count > 1 else None
        for hook, middleware in hooks:
            try:
                if count == 1:
                    hook(broker, first)
                elif count == 2:
                    hook(broker, first, second)
                else:
                    hook(broker, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                broker.logger.critical("Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True)

    def call_after(self, broker: Broker, signal: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call the hooks ``after_<signal>``, last to first; log their exceptions.

        Raises:
            SpoiledAttempt: a hook raised it after the actor had returned: the attempt has failed nevertheless.
        """
        ended = len(args) == 1 and len(kwargs) == 1 and "result" in kwargs  # the actor returned
        if not (hooks := self.after(signal, broker.middleware, succeeded=ended)):
            return
        count = 0 if kwargs else len(args)
        first = args[0] if args else None
        result = kwargs["result"] if ended else None
        for hook, middleware in hooks:
            try:
                if ended:
                    hook(broker, first, result=result)
                elif count == 1:
                    hook(broker, first)
                else:
                    hook(broker, *args, **kwargs)
            except SpoiledAttempt:
                if ended:
                    raise  # Dramatiq's worker takes it for an exception of the actor, and calls the hooks anew
                broker.logger.error("Failure in after_%s of %r.", signal, middleware, exc_info=True)
            except Exception:
                broker.logger.critical("Unexpected failure in after_%s of %r.", signal, middleware, exc_info=True)

    def _forget(self, middleware: list[Middleware]) -> None:
        self._before, self._after, self._after_success, self._of = {}, {}, {}, list(middleware)


def _named(name: str, middleware: list[Middleware]) -> list[tuple[Hook, Middleware]]:
    empty = getattr(Middleware, name, None)
    has = (entry for entry in middleware if name in vars(entry) or getattr(type(entry), name, None) is not empty)
    return [(getattr(entry, name), entry) for entry in has]
