"""Warning, in development, of a time without a zone that is sent: the worker computes with it as it came."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker.queue.arguments.types import argument_types
from middleware.arguments import signature_of

logger = logging.getLogger("switchyard.jobs")


class ZoneWarnings(Middleware):
    """Log of each argument, once a process, that is annotated ``datetime`` and gets a time without a zone.

    Listed in development only, where ``USE_TZ`` is set as it is everywhere here.
    """

    def __init__(self) -> None:
        self._reported: set[tuple[str, str]] = set()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Warn of times without a zone."""
        actor = broker.actors.get(message.actor_name)
        if actor is None or not argument_types(actor.fn).is_typed:
            return
        try:
            given = signature_of(actor.fn).bind(*message.args, **message.kwargs).arguments
        except TypeError:  # refused by another middleware, or of other code
            return
        for name, value in given.items():
            if (
                not isinstance(value, datetime)
                or value.tzinfo is not None
                or (actor.actor_name, name) in self._reported
            ):
                continue
            self._reported.add((actor.actor_name, name))
            logger.warning(
                "actor %s: argument %s has no zone; send timezone.now(), or timezone.make_aware(%s), of django.utils",
                actor.actor_name,
                name,
                name,
            )
