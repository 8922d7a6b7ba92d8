"""The options ``periodic`` and ``catch_up``: the times at which the scheduler sends an actor.

periodiq's own middleware declares ``periodic`` and drops ticks that are 30 s late; this one only declares it, and
``switchyard/schedules`` sends the ticks.
"""

from __future__ import annotations

from typing import ClassVar

from dramatiq.middleware import Middleware

from switchyard.middleware.option_rules import OptionRule, any_value


class Periodic(Middleware):
    """Options ``periodic=cron("0 2 * * *")``, with periodiq's ``cron``, and ``catch_up`` for missed ticks.

    Their values are validated by system checks, see ``switchyard/schedules/checks.py``.
    """

    option_rules: ClassVar = (
        OptionRule("periodic", any_value, words='write cron("0 2 * * *") of periodiq, in UTC'),
        OptionRule("catch_up", any_value, words='write "once", "skip" or "all"'),
    )
    actor_options = {"periodic", "catch_up"}
