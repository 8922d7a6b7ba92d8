"""Errors of the transport. Each says what was wrong, the value, and what to do."""

from __future__ import annotations

from dramatiq.errors import ConnectionClosed


class SwitchyardError(Exception):
    """Root of every error that Switchyard raises."""


class BrokerUnavailable(SwitchyardError, ConnectionClosed):
    """The broker did not answer.

    Args:
        operation: What was asked of it.
        cause: The client's own words.
        outcome: ``"unknown"`` when the operation may have happened, ``"refused"`` when it did not.
    """

    def __init__(self, operation: str, cause: str, *, outcome: str = "unknown") -> None:
        self.outcome = outcome
        super().__init__(
            f"broker did not answer {operation}: {cause} (outcome {outcome}); "
            "check SWITCHYARD_BROKER_URL and that the server is up, then send again"
        )


class UnknownQueue(SwitchyardError):
    """A queue that the yard does not declare."""

    def __init__(self, queue_name: str, declared: tuple[str, ...]) -> None:
        super().__init__(
            f"queue {queue_name!r} is not declared; the yard has {', '.join(declared)}; add it to project/topology.py"
        )


class UnknownPool(SwitchyardError):
    """A pool that the yard does not declare."""

    def __init__(self, pool_name: str, declared: tuple[str, ...]) -> None:
        super().__init__(
            f"pool {pool_name!r} is not declared; the yard has {', '.join(declared)}; see project/topology.py"
        )


class NoSuchLetter(SwitchyardError):
    """A dead letter that is in no dead list (any more)."""

    def __init__(self, queue_name: str, letter_id: str) -> None:
        super().__init__(
            f"dead letter {letter_id!r} is not in {queue_name}-dead; "
            "it was requeued or discarded before, see `manage.py deadletters list`"
        )
