"""Messages that lost their lease while they waited for a thread."""

from __future__ import annotations

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.middleware.outcomes import Outcome, decide


class LostLeases(Middleware):
    """Middleware that skips a message whose owner lost its lease after the fetch: another worker has the message.

    For workers that renew their own leases, such as ``rundramatiq``. In a pool the supervisor replaces the child. Where
    a message belongs to a connection, a consumer whose connection ended has lost all that it had received.
    """

    def __init__(self) -> None:
        self._lost: set[str] = set()

    def after_lose_lease(self, broker: Broker, owner: str) -> None:
        """Remember an owner whose lease is lost. Its name is never used again."""
        self._lost.add(owner)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Skip a message of a lost owner, or one that waited for a thread for so long that it was given back."""
        if getattr(message, "given_back", False) or (self._lost and message.lease.owner in self._lost):
            message.moved = True  # type: ignore[attr-defined]
            decide(message, Outcome("deferred", "lease"))
            raise SkipMessage("its lease was lost before it started")
