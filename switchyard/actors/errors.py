"""Errors of sending an actor by hand."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from switchyard.broker.errors import SwitchyardError


class ActorNotDeclared(SwitchyardError):
    """No actor of this code has the name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        near = difflib.get_close_matches(name, list(known), n=1)
        remedy = f"did you mean {near[0]}?" if near else "see manage.py switchyard actors list"
        super().__init__(f"actor {name:.200}: this code has no actor of that name; {remedy}")
