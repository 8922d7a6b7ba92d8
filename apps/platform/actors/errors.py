"""Errors of sending an actor by hand."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from broker.errors import SwitchyardError


class ActorNotDeclared(SwitchyardError):
    """No actor of this code has the name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        near = difflib.get_close_matches(name, list(known), n=1)
        remedy = f"did you mean {near[0]}?" if near else "see manage.py actors list"
        super().__init__(f"actor {name:.200}: this code has no actor of that name; {remedy}")


class InvalidCall(SwitchyardError):
    """The arguments do not fit the actor.

    Args:
        faults: Name of a parameter, or "" for the call as a whole, and what is wrong; never a value.
    """

    def __init__(self, actor: str, faults: dict[str, str]) -> None:
        self.faults = faults
        text = "; ".join(f"{name}: {fault}" if name else fault for name, fault in faults.items())
        super().__init__(f"actor {actor}: the arguments do not fit: {text}")
