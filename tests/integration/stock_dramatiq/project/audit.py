"""A middleware of the project's own, with an option, as Dramatiq's guide shows."""

from __future__ import annotations

from typing import Any

import dramatiq

from . import journal


class Audit(dramatiq.Middleware):
    """Note the ends of actors with ``audited=True``, and of messages with their own."""

    @property
    def actor_options(self) -> set[str]:
        return {"audited"}

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        actor = broker.get_actor(message.actor_name)
        if message.options.get("audited", actor.options.get("audited")):
            journal.note("audit", (message.actor_name, result, type(exception).__name__))
