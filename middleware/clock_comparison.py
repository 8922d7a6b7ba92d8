"""Comparison of a process's clock with the server's while it sends or runs messages."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from switchyard.broker import clock
from switchyard.broker.interface import attach, facilities
from switchyard.broker.redis.server_clock import ServerClock


class ClockComparison(Middleware):
    """Middleware that compares the clocks when a worker boots, and then every 10 s before a message.

    Listed first: the others stamp messages and judge their age by :mod:`switchyard.broker.clock`.
    """

    def __init__(self, *, clock: ServerClock) -> None:
        self._clock = clock

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        self._clock.compare()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        self._clock.compare()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._clock.compare()


def compare_clocks(broker: Broker) -> None:
    """Have the processes of a broker reckon with the server's time where their own clock is wrong."""
    found = facilities(broker)
    server = ServerClock(getattr(broker, "calls", found.records.calls))  # of a connection that is in use
    attach(broker, replace(found, clock=server))
    broker.add_middleware(ClockComparison(clock=server), before=type(broker.middleware[0]))


def compared_now() -> datetime:
    """Return the time in UTC, once the clocks are compared: requests read it before they enqueue anything."""
    comparison = facilities().clock
    if comparison is not None:
        comparison.compare()
    return clock.utc_now()
