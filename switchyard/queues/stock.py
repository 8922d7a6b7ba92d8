"""Import of messages that stock Dramatiq left in its queues: on Redis, or where an add-on reads them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import MAINTENANCE_SCALE, RedisBroker
from dramatiq.common import dq_name
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.message import Message
from redis.exceptions import RedisError

from switchyard.addon import addon_for, addons
from switchyard.audit.services import Who, act
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import ActRefused, BrokerError, QueueFull, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted

PREFETCH: Final = 100
IDLE_MS: Final = 1_000
SCHEMES: Final = ("redis", "rediss", "unix")
# Ends of the names of keys of stock Dramatiq, and how many keys a walk over them asks for at once.
MESSAGES, HEARTBEATS, SCANNED_AT_ONCE = ".msgs", ":__heartbeats__", 1_000
# Options by which stock Dramatiq's brokers and middleware note where a message is and how often it failed.
OF_STOCK: Final = frozenset({"redis_message_id", "requeue_timestamp", "eta", "retries", "traceback", "broker_priority"})


@dataclass(slots=True)
class Imported:
    """Result of the import of one queue.

    Args:
        moved: Messages that are in the yard's queue now.
        unreadable: Messages that are none; they stay on their server.
        refused: Messages that the yard refused, with the reason; they stay where they are.
        left: Messages that are still in stock Dramatiq's queue; ``None`` where the server does not count them.
        cut: Whether so many were refused that the server delivers no more.
    """

    queue: str
    moved: int = 0
    unreadable: int = 0
    refused: list[str] = field(default_factory=list)
    left: int | None = None
    cut: bool = False

    def refuses(self, message: MessageProxy, refused_ids: set[str]) -> bool:
        """Enqueue a message, and return whether the yard refuses it; ids of refused ones are noted, and tried once.

        Raises:
            QueueFull, BrokerError: it does not take any.
        """
        if message.message_id in refused_ids:
            return True
        delay_ms = max(int(message.options.get("eta", 0)) - now_ms(), 0)
        options = {name: value for name, value in message.options.items() if name not in OF_STOCK}
        wanted: Message[Any] = Message(**{**message.asdict(), "queue_name": self.queue, "options": options})
        try:
            dramatiq.get_broker().enqueue(wanted, delay=delay_ms or None)
        except (BrokerError, QueueFull):
            raise
        except SwitchyardError as error:
            self.refused.append(f"{message.message_id}: {error}")
            refused_ids.add(message.message_id)
            return True
        self.moved += 1
        return False


class StockQueues(Protocol):
    """Queues of stock Dramatiq on a server."""

    def drain(self, name: str, into: Imported) -> None:
        """Move what waits in a queue, which may not exist: acknowledge each message that ``into`` does not refuse."""

    def left(self, names: tuple[str, str]) -> int | None:
        """Return how many messages are in queues; ``None`` where the server does not count them."""


class StockRedis:
    """Queues of stock Dramatiq on Redis. Each fetch first returns what workers held that are not heard of for a minute.

    Raises:
        ActRefused: the address cannot be read.
    """

    def __init__(self, url: str, *, namespace: str = "dramatiq") -> None:
        try:
            self.broker = RedisBroker(url=url, namespace=namespace, middleware=[], maintenance_chance=MAINTENANCE_SCALE)
        except ValueError as error:  # redis-py names the part
            fact = f"the address cannot be read: {error}; write redis://HOST:6379/0"
            raise ActRefused("import", fact, by_argument=True) from error

    def drain(self, name: str, into: Imported) -> None:
        """Move what waits in a queue."""
        consumer: Any = self.broker.consumer_class(self.broker, name, PREFETCH, IDLE_MS)
        refused: list[MessageProxy] = []
        refused_ids = set[str]()
        try:
            for message in _messages(consumer, into):
                if into.refuses(message, refused_ids):
                    refused.append(message)
                    consumer.queued_message_ids.discard(message.message_id)  # or a hundred of them end the fetching
                else:
                    consumer.ack(message)
        finally:
            consumer.requeue(refused)
            consumer.close()

    def left(self, names: tuple[str, str]) -> int:
        """Return how many messages are in queues, with those that workers hold."""
        return sum(int(self.broker.client.hlen(f"{self.broker.namespace}:{name}.msgs")) for name in names)


def stock_queues(url: str, *, namespace: str = "dramatiq") -> StockQueues:
    """Return the queues of stock Dramatiq at an address; ``ActRefused`` for one that cannot be read, or not here."""
    scheme = url.partition(":")[0].lower()
    if scheme in SCHEMES:
        return StockRedis(url, namespace=namespace)
    addon = addon_for(scheme)
    if addon is None or not addon.stock:
        raise ActRefused("import", f"the address begins with {scheme!r}; write {known_addresses()}", by_argument=True)
    found: StockQueues = addon.load("stock")(url)
    return found


def known_addresses() -> str:
    """Return how addresses of stock Dramatiq's servers begin: ``redis://, rediss:// or unix://``."""
    schemes = (*SCHEMES, *(scheme for found in addons() if found.stock for scheme in found.schemes))
    *first, last = (f"{scheme}://" for scheme in schemes)
    return f"{', '.join(first)} or {last}"


def import_queue(source: StockQueues, queue: str, *, who: Who) -> Imported:
    """Move what waits in a queue of stock Dramatiq, delayed messages included, into the yard's queue of that name.

    A message is enqueued first and then acknowledged: an import that is killed loses nothing. Enqueued again under the
    same id, it stays one message on Redis.

    Raises:
        UnknownQueue: the yard has no such queue.
        ActRefused: the server of stock Dramatiq does not answer.
        QueueFull: the yard's queue is full.
    """
    found = Imported(declared_yard().queue_of(queue).name)
    if (clock := facilities(dramatiq.get_broker()).clock) is not None:
        clock.compare()  # an eta becomes a delay: of this host's clock nothing is assumed
    names = found.queue, dq_name(found.queue)
    with act("queue.import", who=who, target=found.queue) as entry:
        entry.count = 0
        try:
            for name in names:
                source.drain(name, found)
                entry.count = found.moved
        except BrokerError:  # of the yard; it is a ConnectionClosed as well
            raise
        except (ConnectionClosed, RedisError, OSError) as error:
            cause = str(error) or type(error).__name__
            after = f"after {found.moved} messages of {found.queue}"
            fact = f"the server of stock Dramatiq does not answer {after}: {cause}; check its URL, try again"
            raise ActRefused("import", fact) from error
    found.left = source.left(names)
    return found


def _messages(consumer: Any, into: Imported) -> Iterator[MessageProxy]:
    while True:
        try:
            message = next(consumer)
        except DecodeError:
            into.unreadable += 1
            continue
        if message is None:
            return
        yield message


def leftover_lines(source: StockQueues) -> list[str]:
    """Return what is left on stock Dramatiq's Redis that no import of a declared queue takes; no other server is asked.

    Walks over the names of all keys of the old database.
    """
    if not isinstance(source, StockRedis):
        return []
    try:
        return _leftovers(source.broker)
    except RedisError as error:
        fact = f"the server of stock Dramatiq does not answer: {error}; check its URL, try again"
        raise ActRefused("import", fact) from error


def _leftovers(source: RedisBroker) -> list[str]:
    prefix, own, namespaces, counts = f"{source.namespace}:", False, set[str](), Counter[str]()
    queues: dict[bytes, str] = {}  # SCAN may return a key twice
    for key in source.client.scan_iter(count=SCANNED_AT_ONCE):
        name = key.decode(errors="replace")
        if name.endswith(HEARTBEATS):
            namespaces.add(name.removesuffix(HEARTBEATS))
        if not name.startswith(prefix) or name.startswith(f"{prefix}__"):  # the import itself leaves a heartbeat
            continue
        own = True
        if name.endswith(MESSAGES) and not name.endswith(f".XQ{MESSAGES}"):
            queues[key] = name.removeprefix(prefix).removesuffix(MESSAGES).removesuffix(".DQ")
    for key, queue in queues.items():
        counts[queue] += int(source.client.hlen(key))
    declared = {queue.name for queue in declared_yard().queues}
    lines = [
        f"{queue}: {counted(count, 'message')} left there, for this yard declares no such queue: add it to the "
        "topology and run this again"
        for queue, count in sorted(counts.items())
        if count and queue not in declared
    ]
    if not own:
        namespaces.discard(source.namespace)
        others = f"; workers used {', '.join(sorted(namespaces))} there" if namespaces else ""
        lines.append(
            f"no queue there begins with {prefix!r}{others}: unless an earlier import took everything, "
            "check --namespace and the number of the database"
        )
    return lines
