"""Queues of stock Dramatiq on RabbitMQ, for an import."""

import logging
import time
from collections.abc import Iterator
from typing import Any, Final

from dramatiq.broker import MessageProxy
from dramatiq.errors import ConnectionClosed, DecodeError

from switchyard.broker.errors import ActRefused
from switchyard.queues.stock import Imported

PREFETCH: Final = 100
# The server takes 16 bits.
MOST_PREFETCH: Final = 65_535
# How long the server may take to deliver the first message; a consumer that ends earlier rejected one.
IDLE_MS: Final = 1_000
NOT_FOUND: Final = 404


class _QueueMissing(Exception):
    """The server has no such queue, and has closed the channel of the question."""


class StockRabbitmq:
    """Queues of stock Dramatiq on RabbitMQ. A message that is imported twice is two messages where the yard is on one.

    ``ActRefused`` where pika is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            from dramatiq.brokers.rabbitmq import RabbitmqBroker
        except ModuleNotFoundError as error:
            raise ActRefused("import", f"{error}; install the client: pip install 'pika>=1.4,<1.5'") from error
        # Over a hundred lines for each queue; each error is raised as well.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._broker = RabbitmqBroker(url=url, middleware=[])

    def drain(self, name: str, into: Imported) -> None:
        """Move what waits in a queue; bytes that are no message go to the queue of rejected messages (``.XQ``).

        The server delivers no more than a consumer's prefetch while refused messages are held: once they fill it,
        another consumer with twice the prefetch goes on behind them.
        """
        prefetch, refused_ids = PREFETCH, set[str]()
        while self._refused(name, into, prefetch, refused_ids) >= prefetch:
            if prefetch == MOST_PREFETCH:
                into.cut = True
                return
            prefetch = min(2 * prefetch, MOST_PREFETCH)

    def left(self, names: tuple[str, str]) -> None:
        """Return ``None``: a client is not told what workers hold."""

    def _refused(self, name: str, into: Imported, prefetch: int, refused_ids: set[str]) -> int:
        """Move what one consumer is given, and return how many messages of it were refused."""
        consumer: Any = self._broker.consumer_class(self._broker, name, prefetch, IDLE_MS)
        close, count = consumer.close, 0
        try:
            for message in _messages(consumer, into):
                if into.refuses(message, refused_ids):
                    count += 1  # it goes back when the consumer is closed
                else:
                    consumer.ack(message)
        except _QueueMissing:
            close = consumer.connection.close  # closing the consumer fails, because its channel is closed
        finally:
            close()
        return count


def _messages(consumer: Any, into: Imported) -> Iterator[MessageProxy]:
    while True:
        asked_s = time.monotonic()
        try:
            message = next(consumer)
        except DecodeError:
            into.unreadable += 1
            continue
        except ConnectionClosed as error:
            if getattr(error.args[0], "reply_code", None) == NOT_FOUND:
                raise _QueueMissing from error
            raise
        if message is not None:
            yield message
        elif time.monotonic() - asked_s < 0.9 * IDLE_MS / 1000:
            into.unreadable += 1  # the consumer rejects it, and returns as it does when nothing is left
        else:
            return
