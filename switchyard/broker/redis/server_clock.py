"""Comparison of this process's clock with the server's, once in ten seconds."""

import time
from typing import Final

from switchyard.broker.clock import CLOCK
from switchyard.broker.errors import BrokerError
from switchyard.broker.redis.calls import RedisCalls

EVERY_S: Final = 10.0
# A slower answer says too little about the moment at which the server read its clock.
LONGEST_ANSWER_S: Final = 0.3


class ServerClock:
    """Compare the clocks when asked to, at most every 10 s; a server that does not answer is asked again after 10 s.

    Where keys lie at several places any server answers: their clocks must agree.
    """

    def __init__(self, calls: RedisCalls) -> None:
        self._calls = calls
        self._due_s = 0.0

    def compare(self) -> None:
        """Ask for the server's time if that is due; raises nothing, and takes 0.3 s at most."""
        began_s = time.monotonic()
        if began_s < self._due_s:
            return
        self._due_s = began_s + EVERY_S  # first: other threads go on without
        try:
            seconds, micros = self._calls.command("TIME", budget_s=LONGEST_ANSWER_S)
        except BrokerError:  # whatever the caller asks of the server next says so
            return
        took_s = time.monotonic() - began_s
        if took_s <= LONGEST_ANSWER_S:
            CLOCK.measured(int(seconds) * 1_000_000_000 + int(micros) * 1_000 + int(took_s / 2 * 1e9))
