"""Messages that an import does not reach: stock Dramatiq's queues that the yard lacks, or another namespace."""

from __future__ import annotations

from dramatiq.brokers.redis import RedisBroker
from redis.exceptions import RedisError

from switchyard.broker.errors import ActRefused
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted
from switchyard.queues.stock import StockQueues, StockRedis

MESSAGES = ".msgs"
HEARTBEATS = ":__heartbeats__"
SCANNED_AT_ONCE = 1_000


def leftover_lines(source: StockQueues) -> list[str]:
    """Return what is left on stock Dramatiq's Redis that no import of a declared queue takes; no other server is asked.

    Walks over the names of all keys of the old database.

    Raises:
        ActRefused: the server of stock Dramatiq does not answer.
    """
    if not isinstance(source, StockRedis):
        return []
    try:
        return _lines(source.broker)
    except RedisError as error:
        raise ActRefused(
            "import", f"the server of stock Dramatiq does not answer: {error}; check its URL, try again"
        ) from error


def _lines(source: RedisBroker) -> list[str]:
    prefix, own, namespaces = f"{source.namespace}:", False, set[str]()
    counts: dict[str, int] = {}
    counted_keys = set[bytes]()
    for key in source.client.scan_iter(count=SCANNED_AT_ONCE):
        name = key.decode(errors="replace")
        if name.endswith(HEARTBEATS):
            namespaces.add(name.removesuffix(HEARTBEATS))
        if not name.startswith(prefix) or name.startswith(f"{prefix}__"):  # the import itself leaves a heartbeat
            continue
        own = True
        queue = name.removeprefix(prefix).removesuffix(MESSAGES).removesuffix(".DQ")
        if name.endswith(f".XQ{MESSAGES}") or not name.endswith(MESSAGES) or key in counted_keys:
            continue
        counted_keys.add(key)  # SCAN may return a key twice
        counts[queue] = counts.get(queue, 0) + int(source.client.hlen(key))
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
