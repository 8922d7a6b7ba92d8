"""Option ``on_commit``: whether a send inside of a database transaction waits for the commit.

The broker is given what waits by the wiring (:mod:`switchyard.outbox.sends`): no middleware can put a send off.
"""

from __future__ import annotations

from typing import Any, ClassVar

from dramatiq.middleware import Middleware

from switchyard.middleware.options import rule_of_both


class OnCommit(Middleware):
    """Option ``on_commit`` of actors and messages, before the setting ``SENDS``.

    ``True`` waits for the commit, ``False`` sends at once; a text is the alias of the database whose commit counts.
    """

    option_rules: ClassVar = (rule_of_both("on_commit", lambda value: _usable(value)),)
    actor_options = {"on_commit"}


def _usable(value: Any) -> str:
    return "" if type(value) is bool or (isinstance(value, str) and value) else "write True or False, or a database"
