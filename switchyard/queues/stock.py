"""Import of messages that stock Dramatiq left in its queues, on Redis or on RabbitMQ."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.brokers.redis import MAINTENANCE_SCALE, RedisBroker
from dramatiq.common import dq_name
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.message import Message
from redis.exceptions import RedisError

from switchyard.audit.services import act
from switchyard.audit.who import Who
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import ActRefused, BrokerError, QueueFull, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard

PREFETCH: Final = 100
# RabbitMQ takes 16 bits.
MOST_PREFETCH: Final = 65_535
# How long a RabbitMQ server may take to deliver the first message; a consumer that ends earlier rejected one.
IDLE_MS: Final = 1_000
NOT_FOUND: Final = 404
# Options by which stock Dramatiq's brokers and middleware note where a message is and how often it failed.
OF_STOCK: Final = frozenset({"redis_message_id", "requeue_timestamp", "eta", "retries", "traceback", "broker_priority"})


@dataclass(slots=True)
class Imported:
    """Result of the import of one queue.

    Args:
        moved: Messages that are in the yard's queue now.
        unreadable: Messages that are none; they stay where they are, on RabbitMQ with the rejected ones (``.XQ``).
        refused: Messages that the yard refused, with the reason; they stay where they are.
        left: Messages that are still in stock Dramatiq's queue; ``None`` where the server does not tell.
        cut: Whether RabbitMQ delivers no more, for as many were refused as it delivers to one consumer.
    """

    queue: str
    moved: int = 0
    unreadable: int = 0
    refused: list[str] = field(default_factory=list)
    left: int | None = None
    cut: bool = False


def stock_broker(url: str, *, namespace: str = "dramatiq") -> Broker:
    """Return stock Dramatiq's broker at an address.

    Raises:
        ActRefused: the address is of no broker that stock Dramatiq has, or pika is not installed.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in ("redis", "rediss", "unix"):
        # Each fetch first returns what workers held that have not been heard of for a minute.
        try:
            return RedisBroker(url=url, namespace=namespace, middleware=[], maintenance_chance=MAINTENANCE_SCALE)
        except ValueError as error:  # redis-py names the part
            raise ActRefused("import", f"the address cannot be read: {error}; write redis://HOST:6379/0") from error
    if scheme not in ("amqp", "amqps"):
        raise ActRefused(
            "import", f"the address begins with {scheme!r}; write redis://, rediss://, unix://, amqp:// or amqps://"
        )
    try:
        from dramatiq.brokers.rabbitmq import RabbitmqBroker  # pika is installed where it is used
    except ModuleNotFoundError as error:
        raise ActRefused("import", f"{error}; install the client: pip install 'pika>=1.4,<1.5'") from error
    # Over a hundred lines for each queue; each error is raised as well.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    return RabbitmqBroker(url=url, middleware=[])


def import_queue(source: Broker, queue: str, *, who: Who) -> Imported:
    """Move what waits in a queue of stock Dramatiq, delayed messages included, into the yard's queue of that name.

    A message is enqueued first and then acknowledged: an import that is killed loses nothing. Enqueued again under the
    same id, it stays one message on Redis, and is two on RabbitMQ.

    Raises:
        UnknownQueue: the yard has no such queue.
        ActRefused: the server of stock Dramatiq does not answer.
        QueueFull: the yard's queue is full.
    """
    found = Imported(declared_yard().queue_of(queue).name)
    if (clock := facilities(dramatiq.get_broker()).clock) is not None:
        clock.compare()  # an eta becomes a delay: of this host's clock nothing is assumed
    with act("queue.import", who=who, target=found.queue) as entry:
        entry.count = 0
        try:
            for name in (found.queue, dq_name(found.queue)):
                _import(source, name, found)
                entry.count = found.moved
        except BrokerError:  # of the yard; it is a ConnectionClosed as well
            raise
        except (ConnectionClosed, RedisError, OSError) as error:
            cause = str(error) or type(error).__name__
            after = f"after {found.moved} messages of {found.queue}"
            fact = f"the server of stock Dramatiq does not answer {after}: {cause}; check its URL, try again"
            raise ActRefused("import", fact) from error
    if isinstance(source, RedisBroker):
        keys = [f"{source.namespace}:{name}.msgs" for name in (found.queue, dq_name(found.queue))]
        found.left = sum(int(source.client.hlen(key)) for key in keys)
    return found


class _QueueMissing(Exception):
    """The old server has no such queue, and has closed the channel on which it was asked for."""


def _import(source: Broker, name: str, into: Imported) -> None:
    """Import the messages of one stock queue.

    RabbitMQ delivers no more than a consumer's prefetch while refused messages are held: once they fill it, another
    consumer with twice the prefetch goes on behind them.
    """
    prefetch, refused_ids = PREFETCH, set[str]()
    while _held_back(source, name, into, prefetch, refused_ids):
        if prefetch == MOST_PREFETCH:
            into.cut = True
            return
        prefetch = min(2 * prefetch, MOST_PREFETCH)


def _held_back(source: Broker, name: str, into: Imported, prefetch: int, refused_ids: set[str]) -> bool:
    """Import what a consumer delivers; return whether messages that were refused filled its prefetch.

    Args:
        refused_ids: Messages that were refused before; those that are refused now are added.
    """
    target: Broker = dramatiq.get_broker()
    consumer: Any = source.consumer_class(source, name, prefetch, IDLE_MS)  # type: ignore[attr-defined]
    close = consumer.close
    refused: list[MessageProxy] = []
    is_redis = isinstance(source, RedisBroker)
    try:
        for message in _messages(consumer, into):
            if (why := _refusal(target, message, into, refused_ids)) is None:
                consumer.ack(message)
                into.moved += 1
                continue
            refused.append(message)
            if why:
                into.refused.append(f"{message.message_id}: {why}")
                refused_ids.add(message.message_id)
            if is_redis:
                consumer.queued_message_ids.discard(message.message_id)  # or a hundred of them end the fetching
    except _QueueMissing:
        close = consumer.connection.close  # closing the consumer fails, because its channel is closed
    finally:
        if is_redis:  # RabbitMQ takes back by itself what a closed consumer held
            consumer.requeue(refused)
        close()
    return not is_redis and len(refused) >= prefetch


def _refusal(target: Broker, message: MessageProxy, into: Imported, refused_ids: set[str]) -> str | None:
    """Enqueue a message, or return why the yard refuses it: "" when that is known already.

    Raises:
        QueueFull: the yard's queue is full.
        BrokerError: the yard's broker did not answer.
    """
    if message.message_id in refused_ids:
        return ""
    delay_ms = max(int(message.options.get("eta", 0)) - now_ms(), 0)
    try:
        target.enqueue(_of_yard(message, into.queue), delay=delay_ms or None)
    except (BrokerError, QueueFull):
        raise
    except SwitchyardError as error:
        return str(error)
    return None


def _messages(consumer: Any, into: Imported) -> Iterator[MessageProxy]:
    """Yield messages until nothing is left to fetch.

    Raises:
        _QueueMissing: the old RabbitMQ has no such queue.
    """
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
        elif hasattr(consumer, "channel") and time.monotonic() - asked_s < 0.9 * IDLE_MS / 1000:
            into.unreadable += 1  # RabbitMQ's consumer rejects it, and returns as it does when nothing is left
        else:
            return


def _of_yard(message: MessageProxy, queue: str) -> Message[Any]:
    return Message(
        queue_name=queue,
        actor_name=message.actor_name,
        args=message.args,
        kwargs=message.kwargs,
        options={name: value for name, value in message.options.items() if name not in OF_STOCK},
        message_id=message.message_id,
        message_timestamp=message.message_timestamp,
    )
