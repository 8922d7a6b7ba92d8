"""Errors of triage."""

from __future__ import annotations

from redis import RedisError

from broker.errors import BrokerUnavailable, SwitchyardError


class UnknownDeadLetter(SwitchyardError):
    """No dead letter has that id, neither as a row nor in a dead list."""

    def __init__(self, message_id: str) -> None:
        super().__init__(f"dead letter {message_id!r}: there is none; see `manage.py deadletters list`")


class UnknownGroup(SwitchyardError):
    """No open dead letter has that fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(
            f"group {fingerprint!r}: no open dead letter has this fingerprint; "
            "see `manage.py deadletters list` for those there are"
        )


# What reads and moves raise when the broker does not answer.
BROKER_AWAY = (BrokerUnavailable, RedisError)
