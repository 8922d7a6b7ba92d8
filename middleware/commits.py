"""Option ``on_commit``: whether a send inside of a database transaction waits for the commit.

The broker is given what waits by the wiring (:mod:`switchyard.outbox.sends`): no middleware can put a send off.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dramatiq.middleware import Middleware

from switchyard.middleware.options import rule_of_both


class OnCommit(Middleware):
    """Option ``on_commit`` of actors and messages, before the setting ``SENDS``.

    ``True`` waits for the commit, ``False`` sends at once; a text is the alias of the database whose commit counts.

    Args:
        databases: Aliases that there are.
    """

    actor_options = {"on_commit"}

    def __init__(self, *, databases: Iterable[str]) -> None:
        self.option_rules = (rule_of_both("on_commit", lambda value: _usable(value, databases)),)


def _usable(value: Any, databases: Iterable[str]) -> str:
    usable = type(value) is bool or (isinstance(value, str) and value in databases)
    return "" if usable else f"write True or False, or a database: {', '.join(databases)}"
