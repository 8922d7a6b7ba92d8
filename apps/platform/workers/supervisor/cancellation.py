"""Running jobs that somebody cancelled, as their supervisor sees them: what does not stop is ended with its child."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from apps.platform.workers.shared.child_table import Running
from broker.errors import BrokerRefused, BrokerUnavailable

LOOK_EVERY_S = 0.25
# A supervisor with nothing to look at wakes up so often.
IDLE_S = 1.0
LOOK_AGAIN_S = 1.0
# The child knows by itself, and raises in the task, before this; a greenlet that lets no other run cannot be told so.
INTERRUPT_AFTER_S = 0.4
# The child is told to end then, and killed 5 s later: in all, with the time until it was seen, within 10 s.
END_AFTER_S = 3.0

Key = tuple[int, Running]

logger = logging.getLogger("switchyard.workers")


class CancellationWatch:
    """Remembers since when running messages are asked to stop.

    Args:
        look: Given place -> what runs there, returns those of it that were asked to stop, by place. May raise
            ``BrokerUnavailable`` or ``BrokerRefused``: no reason for a supervisor to end, and its children with it.
    """

    def __init__(self, look: Callable[[Mapping[int, Sequence[Running]]], set[Key]]) -> None:
        self._look = look
        self._look_at_s = 0.0
        self._since_ns: dict[Key, int] = {}
        self._interrupted: set[Key] = set()

    def mind(self, running: Mapping[int, Sequence[Running]]) -> float:
        """Look up who was asked, if it is time to; return in how many seconds to call again.

        Args:
            running: Place -> messages for which a limit runs. What is not among them is forgotten.
        """
        now_s = time.monotonic()
        if self._since_ns:
            there = {(place, ran) for place, messages in running.items() for ran in messages}
            self._since_ns = {key: since for key, since in self._since_ns.items() if key in there}
            self._interrupted &= there
        if not any(running.values()):
            return IDLE_S
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_EVERY_S
            try:
                for key in self._look(running):
                    self._since_ns.setdefault(key, time.monotonic_ns())
            except BrokerUnavailable:
                self._look_at_s = now_s + LOOK_AGAIN_S
            except BrokerRefused as error:
                logger.warning("who was asked to stop cannot be looked up now: %s", error)
                self._look_at_s = now_s + LOOK_AGAIN_S
        return max(self._look_at_s - time.monotonic(), 0.0)

    def is_asked(self, place: int, ran: Running) -> bool:
        """Say whether a message was asked to stop."""
        return (place, ran) in self._since_ns

    def to_interrupt(self) -> list[Key]:
        """Return, each once, those that had time enough to stop."""
        at_ns = time.monotonic_ns() - int(INTERRUPT_AFTER_S * 1e9)
        due = [key for key, since in self._since_ns.items() if since <= at_ns and key not in self._interrupted]
        self._interrupted.update(due)
        return due

    def over_at_ns(self, place: int, ran: Running) -> int | None:
        """Return the monotonic time at which a message's child is told to end, for its hard limit or the request."""
        since_ns = self._since_ns.get((place, ran))
        if since_ns is None:
            return ran.over_at_ns
        asked_ns = since_ns + int(END_AFTER_S * 1e9)
        return asked_ns if ran.over_at_ns is None else min(asked_ns, ran.over_at_ns)
