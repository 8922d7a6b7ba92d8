"""Redaction: arguments that an actor names in ``redact`` are never shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dramatiq.actor import Actor
from dramatiq.middleware import Middleware

from middleware.arguments import signature_of

HIDDEN = "[redacted]"


class Redaction(Middleware):
    """Declare the option ``redact``: names of arguments that pages, commands and rows must not show."""

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may set."""
        return {"redact"}


def redacted(actor: Actor[..., Any] | None, payload: dict[str, Any]) -> dict[str, Any]:
    """Return a message's payload with the actor's redacted arguments hidden.

    Args:
        actor: Who the message is for; of an unknown actor every argument is hidden.
        payload: With ``args`` and ``kwargs``, as a dead letter holds it.
    """
    if actor is None:
        return _hide(payload, set(payload["kwargs"]), set(range(len(payload["args"]))))
    names: Iterable[str] = actor.options.get("redact", ())
    places = {place for place, name in enumerate(signature_of(actor.fn).parameters) if name in set(names)}
    return _hide(payload, set(names), places)


def _hide(payload: dict[str, Any], names: set[str], places: set[int]) -> dict[str, Any]:
    return {
        **payload,
        "args": [HIDDEN if place in places else value for place, value in enumerate(payload["args"])],
        "kwargs": {name: HIDDEN if name in names else value for name, value in payload["kwargs"].items()},
    }
