"""Work to measure: an actor with its arguments; the pools to compare; and the slow server of the sample ``http``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import dramatiq
from dramatiq.errors import ActorNotFound

from switchyard.broker.topology import Pool, PoolKind, Queue, Yard

POOL = "measured"
SAMPLES_QUEUE = "measured"
THREADS, GREENLETS = (4, 16), (16, 64)


@dataclass(frozen=True, slots=True)
class Contender:
    """A pool's kind and size, written ``threads:1x16``."""

    kind: PoolKind
    processes: int
    slots: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.processes}x{self.slots}"


def read_contender(text: str) -> Contender:
    """Return the contender of ``threads:1x16``, ``processes:2x1`` or ``gevent:1x64``.

    Raises:
        ValueError: the text has another form, or a size is out of range.
    """
    kind, _, size = text.partition(":")
    processes, _, slots = size.partition("x")
    if kind not in ("threads", "processes", "gevent") or not (processes.isdigit() and slots.isdigit()):
        raise ValueError(f"{text!r} is no pool; write kind:PROCESSESxSLOTS, for example threads:1x16 or gevent:1x64")
    found = Contender(kind, int(processes), int(slots))  # type: ignore[arg-type]
    if min(found.processes, found.slots) < 1 or (kind == "processes" and found.slots > 1):
        raise ValueError(f"{text!r}: sizes are at least 1, and processes have one slot each")
    return found


def usual_contenders() -> tuple[Contender, ...]:
    """Return the default contenders: each kind in two or three sizes."""
    cpus = os.cpu_count() or 1
    wide = dict.fromkeys((1, cpus, 2 * cpus))
    return (
        *(Contender("threads", 1, slots) for slots in THREADS),
        *(Contender("processes", count, 1) for count in wide),
        *(Contender("gevent", 1, slots) for slots in GREENLETS),
    )


def yard_with(yard: Yard, queue: str, contender: Contender) -> Yard:
    """Return a yard in which one additional pool alone serves ``queue``; the samples' queue is added if named."""
    queues = yard.queues
    if queue == SAMPLES_QUEUE and all(known.name != queue for known in queues):
        queues = (*queues, Queue(queue, None, soft_limit_ms=60_000, hard_limit_ms=90_000))
    others = [replace(pool, queues=tuple(lane for lane in pool.queues if lane != queue)) for pool in yard.pools]
    measured = Pool(POOL, contender.kind, (queue,), processes=contender.processes, slots=contender.slots)
    pools = (measured, *(pool for pool in others if pool.queues or pool.shared_retries))
    return replace(yard, queues=queues, pools=pools)


SAMPLES = ("cpu", "http", "database")


@dataclass(frozen=True, slots=True)
class Work:
    """Actor, queue and arguments of the messages."""

    actor: str
    queue: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)


def read_work(actor: str, arguments: str, *, url: str) -> Work:
    """Return the work that a command line names: an actor of the project, or one of the samples.

    Args:
        arguments: JSON: a list, or an object of named ones; "" for none.
        url: URL of the slow server, for the sample ``http``.

    Raises:
        ValueError: the actor is unknown, or the arguments are no JSON or do not match its signature.
    """
    try:
        found: Any = dramatiq.get_broker().get_actor(actor)
    except ActorNotFound:
        if actor not in SAMPLES:
            known = ", ".join(sorted(dramatiq.get_broker().actors))
            raise ValueError(f"no actor {actor!r}; the project has {known}; samples are {', '.join(SAMPLES)}") from None
        return Work(f"sample_{actor}", SAMPLES_QUEUE, [url] if actor == "http" else [])
    try:
        given = json.loads(arguments or "[]")
    except ValueError as error:
        raise ValueError(f"arguments {arguments!r} are no JSON ({error}); write for example '[1, 2]'") from None
    if not isinstance(given, (list, dict)):
        raise ValueError(  # noqa: TRY004  invalid value on a command line
            f"arguments {arguments!r} are neither a list nor an object; write for example '[{arguments}]'"
        )
    args, kwargs = (given, {}) if isinstance(given, list) else ([], given)
    try:
        inspect.signature(found.fn).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"actor {actor} does not take these arguments: {error}") from None
    return Work(actor, found.queue_name, args, kwargs)


ANSWER_MS = 50
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@contextlib.contextmanager
def slow_server() -> Iterator[str]:
    """Serve during the block; yield the URL."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_answer, "127.0.0.1", 0, backlog=512))
    thread = threading.Thread(target=loop.run_forever, name="slow-server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(ANSWER_MS / 1_000)
        writer.write(ANSWER)
        await writer.drain()
    writer.close()
