"""Watch of a supervisor over cancelled running jobs: the child of a job that does not stop is terminated."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.workers.shared.child_state import Running

POLL_EVERY_S = 0.25
# Pause while nothing runs, and after the server did not answer.
IDLE_S = 1.0
POLL_AGAIN_S = 1.0
# The child polls by itself and raises in the task before this time; a greenlet that never yields does not see that.
INTERRUPT_AFTER_S = 0.4
# The child gets SIGTERM then, and SIGKILL 5 s later: within 10 s in all, including the poll.
END_AFTER_S = 3.0

Key = tuple[int, Running]

logger = logging.getLogger("switchyard.workers")


class CancellationWatch:
    """Running messages whose jobs were cancelled, with the time of each request.

    Args:
        poll: Given index -> messages that run there, returns those whose jobs are to stop, by index. It may raise
            ``BrokerUnavailable`` or ``BrokerRefused``, which does not end the supervisor.
    """

    def __init__(self, poll: Callable[[Mapping[int, Sequence[Running]]], set[Key]]) -> None:
        self._poll = poll
        self._poll_at_s = 0.0
        self._since_ns: dict[Key, int] = {}
        self._interrupted: set[Key] = set()

    def update(self, running: Mapping[int, Sequence[Running]]) -> float:
        """Poll for cancellations when a poll is due; return the seconds until the next call is due.

        Args:
            running: Index -> messages with a running limit. Messages that are not among them are forgotten.
        """
        now_s = time.monotonic()
        if self._since_ns:
            there = {(index, ran) for index, messages in running.items() for ran in messages}
            self._since_ns = {key: since for key, since in self._since_ns.items() if key in there}
            self._interrupted &= there
        if not any(running.values()):
            return IDLE_S
        if now_s >= self._poll_at_s:
            self._poll_at_s = now_s + POLL_EVERY_S
            try:
                for key in self._poll(running):
                    self._since_ns.setdefault(key, time.monotonic_ns())
            except BrokerUnavailable:
                self._poll_at_s = now_s + POLL_AGAIN_S
            except BrokerRefused as error:
                logger.warning("cancellations of running jobs cannot be read now: %s", error)
                self._poll_at_s = now_s + POLL_AGAIN_S
        return max(self._poll_at_s - time.monotonic(), 0.0)

    def is_cancelled(self, index: int, ran: Running) -> bool:
        """Return whether the job of a running message was cancelled."""
        return (index, ran) in self._since_ns

    def to_interrupt(self) -> list[Key]:
        """Return, once each, the messages that did not stop by themselves in time."""
        at_ns = time.monotonic_ns() - int(INTERRUPT_AFTER_S * 1e9)
        due = [key for key, since in self._since_ns.items() if since <= at_ns and key not in self._interrupted]
        self._interrupted.update(due)
        return due

    def over_at_ns(self, index: int, ran: Running) -> int | None:
        """Return the monotonic time at which a message's child is terminated: for the hard limit, or a cancellation."""
        since_ns = self._since_ns.get((index, ran))
        if since_ns is None:
            return ran.over_at_ns
        cancelled_ns = since_ns + int(END_AFTER_S * 1e9)
        return cancelled_ns if ran.over_at_ns is None else min(cancelled_ns, ran.over_at_ns)
