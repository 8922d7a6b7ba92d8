"""Errors of calls that a person writes."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class InvalidCall(SwitchyardError):
    """The arguments do not fit the actor.

    Args:
        faults: Name of a parameter, or "" for the call as a whole, and what is wrong; never a value.
    """

    def __init__(self, actor: str, faults: dict[str, str]) -> None:
        self.faults = faults
        text = "; ".join(f"{name}: {fault}" if name else fault for name, fault in faults.items())
        super().__init__(f"actor {actor}: the arguments do not fit: {text}")
