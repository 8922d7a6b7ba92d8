"""Errors of dead-letter actions."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class UnknownDeadLetter(SwitchyardError):
    """Neither a row nor a dead list has the message id."""

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"dead letter {message_id!r}: no such dead letter; see `manage.py switchyard deadletters list`"
        )


class UnknownGroup(SwitchyardError):
    """No open dead letter has that fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(
            f"group {fingerprint!r}: no open dead letter has this fingerprint; "
            "see `manage.py switchyard deadletters list` for the open groups"
        )


class ArgumentsRefused(SwitchyardError):
    """Edited arguments are no valid ones of the letter's actor."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"arguments: {fact}")
