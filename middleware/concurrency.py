"""Concurrency and order: how many jobs of an actor, or of a value of its argument, run at once, and in which sequence.

The broker's script that fetches enforces both, so that a job which waits costs no worker, no attempt and no poll.
"""

from __future__ import annotations

from typing import Any, ClassVar

from dramatiq.actor import Actor
from dramatiq.middleware import Middleware

from switchyard.broker.queue.limits import limits_of
from switchyard.middleware.arguments import missing_arguments
from switchyard.middleware.options import OptionRule


class Concurrency(Middleware):
    """Middleware that validates the limits of actors on what runs at once; workers declare them in their queue.

    Options of an actor: ``concurrency``, such as ``5``, ``"5 per customer_id"``, or a list of both; ``ordered_by``, the
    name of an argument of whose values each is worked off one at a time, in the sequence in which its jobs were sent.

    A job has its place from the fetch on until its worker has ended it, returned it, or died. A retry waits without a
    place, one that is ordered keeps it.
    """

    option_rules: ClassVar = (
        OptionRule("concurrency", lambda value, actor: check_limit("concurrency", value, actor)),
        OptionRule("ordered_by", lambda value, actor: check_limit("ordered_by", value, actor)),
    )
    actor_options = {rule.name for rule in option_rules}


def check_limit(option: str, value: Any, actor: Actor[..., Any]) -> str:
    """Return what to write instead of a value of ``concurrency`` or ``ordered_by``; "" for one that can be read."""
    try:
        limits = limits_of({option: value})
    except ValueError as error:
        return str(error)
    if not limits:
        return 'write a number such as 5, or "5 per customer_id", or a list of them'
    names = [limit.argument for limit in limits if limit.argument]
    if redacted := [name for name in names if name in (actor.options.get("redact") or ())]:
        return f"{redacted[0]} is in redact, and would be shown; name another argument"
    return missing_arguments(actor, names)
