"""The option ``periodic``: when an actor is to be sent by the scheduler.

periodiq declares it with a middleware that also drops ticks which are 30 s late; ours only declares it, and
``apps/platform/schedules`` sends the ticks.
"""

from __future__ import annotations

from typing import ClassVar

from dramatiq.middleware import Middleware

from middleware.option_rules import OptionRule, any_value


class Periodic(Middleware):
    """Let actors say ``periodic=cron("0 2 * * *")`` with periodiq's ``cron``, and how to ``catch_up`` missed ticks.

    Their values are validated by system checks, see ``apps/platform/schedules/checks.py``.
    """

    option_rules: ClassVar = (OptionRule("periodic", any_value), OptionRule("catch_up", any_value))

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may set."""
        return {"periodic", "catch_up"}
