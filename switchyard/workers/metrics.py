"""Metrics of a pool's processes: their files, which come back when removed, and the server of ``/metrics``.

It serves ``/health`` too, in a selector's loop: a process that forks must have no threads."""

import contextlib
import errno
import fcntl
import itertools
import logging
import math
import operator
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from switchyard.broker.process import memory_here
from switchyard.broker.stores.pool_reports import PoolReport

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK = "lock"
GAPS_FILE = "counter_gaps.db"
METRIC = "switchyard_metrics_gaps"
HELP = "Times that the pool's metrics folder was removed while it ran; counts of a few seconds are lost each time."
LOOK_EVERY_S = 2.0

logger = logging.getLogger("switchyard.workers")

# Size of a new file, and what is kept free in each, for the series that all threads begin at once.
FIRST_BYTES, FREE_BYTES = 1 << 16, 1 << 14
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_gap = [""]


class Name(dict[int, int | str]):
    """Name of this process in its files' names, under 0, where prometheus-client reads it for each value.

    Made when it is missing: after a fork, and after a gap. All values are then written into new files, whose space is
    allocated before. While there is none, the files before are used: of a child, those of its supervisor.
    """

    def __init__(self) -> None:
        self.before: int | str = 0
        self.sizes: dict[str, int] = {}  # of this process's files, by the prefix of their names
        self._gap = ""
        self._again_at_s = 0.0

    def __missing__(self, key: int) -> int | str:
        name = f"{os.getpid()}-{self._gap}" if self._gap else os.getpid()
        if not all(self._allocates(prefix, name, size) for prefix, size in self.sizes.items()):
            return self.before
        self[key] = name
        return name

    def forget(self, gap: str = "") -> None:
        self.before, self._gap, self._again_at_s = self.pop(0, self.before), gap, 0.0

    def has_room(self, prefix: str) -> bool:
        """Allocate space for another series, if there is too little; return whether there is enough."""
        name = self[0]
        return 0 in self and self._allocates(prefix, name, FIRST_BYTES, free_bytes=FREE_BYTES)

    def _allocates(self, prefix: str, name: int | str, size: int, *, free_bytes: int = 0) -> bool:
        if time.monotonic() < self._again_at_s:
            return False
        try:
            file = Path(os.environ.get(VARIABLE, "")) / f"{prefix}_{name}.db"
            self.sizes[prefix] = allocate(file, size, free_bytes=free_bytes)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._again_at_s = time.monotonic() + LOOK_EVERY_S
                logger.error("metrics: their folder has no room, new series are not counted: %s", error.strerror)
                return False
        return True  # also where the folder is gone, see PoolFolder


def allocate(file: Path, size: int, *, free_bytes: int = 0) -> int:
    """Allocate space for a file of prometheus-client, doubled while fewer bytes are free in it; return its size.

    Raises:
        OSError: there is no room; or no such folder.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    present, head = os.fstat(descriptor).st_size, os.pread(descriptor, 4, 0)
    try:
        size = max(size, present)
        while (struct.unpack("i", head)[0] if len(head) == 4 else 0) + free_bytes > size:
            size *= 2
        if size > present and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        return size
    except OSError:
        if not present:
            file.unlink(missing_ok=True)  # an empty file is none that a scrape can read
        raise
    finally:
        os.close(descriptor)


_name = Name()


def name_files() -> None:
    """Name this process's metrics files, so that new ones can replace lost ones. No-op without files."""
    if values.ValueClass is values.MutexValue:
        return
    if not _name.before:
        os.register_at_fork(after_in_child=_name.forget)
        _name.before = os.getpid()
        values.ValueClass = _with_room(values.MultiProcessValue(partial(operator.getitem, _name, 0)))
    _gap[0] = _read_gap()


def keep_files() -> None:
    """Start new files if the folder was removed and made again."""
    gap = _read_gap()
    if gap != "" and gap != _gap[0]:
        _gap[0] = gap
        _name.forget(gap)  # the next value that changes has another one made, and opens files of that name


class PoolFolder:
    """A pool's folder of metrics, claimed by the lock on a file in it, and made again when it is gone.

    It is emptied, and prometheus-client writes there from now on. A second supervisor of the pool on the same machine,
    while the first drains for example, gets ``<pool>.2``. The claim ends with :meth:`close`.
    """

    def __init__(self, base: Path, pool_name: str) -> None:
        self._pool_name = pool_name
        self._gaps = 0
        self._look_at_s = 0.0
        for attempt in itertools.count(1):
            self.path = base / (pool_name if attempt == 1 else f"{pool_name}.{attempt}")
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                os.close(self._lock)
        os.truncate(self._lock, 0)
        for left in self.path.glob("*.db"):
            left.unlink()
        os.environ[VARIABLE] = str(self.path)
        # Chosen when prometheus-client was imported: a host's process had no folder then.
        if values.ValueClass is values.MutexValue:
            values.ValueClass = values.MultiProcessValue()
        name_files()

    def look(self) -> None:
        """Make the folder again if it or its lock is gone; looks every two seconds."""
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        if (self.path / LOCK).exists():
            return
        try:
            self._restore(self._gaps + 1)
        except OSError as error:
            logger.error("pool %s: the metrics folder cannot be made again: %s", self._pool_name, error.strerror)
            return
        logger.warning(
            "pool %s: the metrics folder was removed while the pool runs; made again, counts since then are lost",
            self._pool_name,
        )

    def close(self) -> None:
        os.close(self._lock)

    def _restore(self, gaps: int) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob("*.db"):
            left.unlink(missing_ok=True)
        allocate(self.path / GAPS_FILE, FIRST_BYTES)
        counted = MmapedDict(str(self.path / GAPS_FILE))
        counted.write_value(mmap_key(METRIC, f"{METRIC}_total", ["pool"], [self._pool_name], HELP), gaps, 0.0)
        counted.close()
        lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, str(gaps).encode())  # last: children start new files as soon as they read it
        os.close(self._lock)
        self._lock, self._gaps = lock, gaps
        _gap[0] = str(gaps)


def gaps_of(folder: Path) -> float:
    """Return how often a pool's folder was removed while the pool ran."""
    try:
        return float(sum(value for _, value, _, _ in MmapedDict.read_all_values_from_file(str(folder / GAPS_FILE))))
    except (OSError, struct.error):  # there is none, or it has just been made and is empty
        return 0


def _read_gap() -> str:
    try:
        return (Path(os.environ.get(VARIABLE, "")) / LOCK).read_text()
    except OSError:  # the supervisor has not made it again yet
        return _gap[0]


def _with_room(stored: Any) -> Any:
    """Return a class of values that are stored in files where there is room for another series, else in memory."""

    class Value(stored):
        def __new__(cls, typ: str, *args: Any, multiprocess_mode: str = "", **options: Any) -> Any:
            prefix = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
            return object.__new__(cls) if _name.has_room(prefix) else values.MutexValue(typ, *args, **options)

    return Value


ADDED_UP = ("counter", "histogram", "summary")  # prometheus-client names a file <kind>_<pid>.db
FOLDING = "folding"
# A scrape takes about 10 ms. One that hangs must not block a supervisor, nor the other way round.
TRY_AGAIN_S, AT_MOST_S = 0.05, 2.0


class EndedChildren:
    """Files of ended children, folded into the total and then removed; none reads between, see :func:`undisturbed`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: dict[int, float] = {}

    def add(self, pid: int) -> None:
        self._pids[pid] = time.monotonic()

    def fold(self) -> float:
        """Fold the files of ended processes, a few milliseconds each; return the seconds until the next call is due."""
        if not self._pids:
            return math.inf
        with contextlib.ExitStack() as lock:
            free = _lock(self._folder, fcntl.LOCK_EX, lock)
            for pid, ended_s in list(self._pids.items()):
                if free or time.monotonic() - ended_s > AT_MOST_S:
                    fold(self._folder, pid)
                    del self._pids[pid]
        return TRY_AGAIN_S if self._pids else math.inf


@contextlib.contextmanager
def undisturbed(folders: Iterable[Path]) -> Iterator[None]:
    """Prevent folding in some folders while they are read. One that is not free within 2 s is read without a lock."""
    until_s = time.monotonic() + AT_MOST_S
    with contextlib.ExitStack() as locks:
        for folder in folders:
            while not _lock(folder, fcntl.LOCK_SH, locks) and time.monotonic() < until_s:
                time.sleep(TRY_AGAIN_S / 10)
        yield


def _lock(folder: Path, how: int, until: contextlib.ExitStack) -> bool:
    """Lock a folder until the stack is left, if it is free. One that this process may not lock counts as free."""
    try:
        lock = os.open(folder / FOLDING, os.O_RDONLY | os.O_CREAT, 0o600)
    except OSError:
        return True
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    until.callback(os.close, lock)
    return True


def fold(folder: Path, pid: int) -> None:
    """Add the metrics of an ended process to the total, and remove its files. Takes a few milliseconds."""
    for file in [*folder.glob(f"*_{pid}.db"), *folder.glob(f"*_{pid}-*.db")]:
        kind = file.name.partition("_")[0]
        if kind in ADDED_UP:
            try:
                _add(file, folder / f"{kind}_ended.db")
            except (OSError, RuntimeError, ValueError, struct.error) as error:  # it ended during a write
                logger.warning("metrics of an ended child are lost: %s: %s", file.name, error)
        file.unlink(missing_ok=True)


def _add(file: Path, total: Path) -> None:
    if not file.stat().st_size:
        return
    counted = list(MmapedDict.read_all_values_from_file(str(file)))
    allocate(total, FIRST_BYTES, free_bytes=file.stat().st_size)  # it grows by less
    totals = MmapedDict(str(total))
    try:
        for key, value, timestamp, _ in counted:
            totals.write_value(key, totals.read_value(key)[0] + value, timestamp)
    finally:
        totals.close()


LARGEST_REQUEST_BYTES, MOST_CONNECTIONS, LONGEST_CONNECTION_S = 8_192, 32, 5.0


class MetricsListener:
    """Server of ``GET /metrics`` and ``GET /health``, and nothing else, one request a connection.

    Args:
        render: Returns the metrics; called in the loop, so it must be quick.
        unhealthy_reason: Returns why ``/health`` answers 503; empty for 200.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self, selector: selectors.BaseSelector, render: Callable[[], bytes], unhealthy_reason: Callable[[], str],
        *, host: str = "127.0.0.1", port: int = 0,
    ) -> None:  # fmt: skip
        self._selector = selector
        self._render = render
        self._unhealthy_reason = unhealthy_reason
        self._connections: dict[socket.socket, float] = {}  # with the time at which each is closed
        self._listener = socket.create_server((host, port), backlog=16)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def expire(self) -> None:
        """Close connections that are older than 5 s. Call it regularly."""
        for client, deadline_s in list(self._connections.items()):
            if time.monotonic() > deadline_s:
                self._close(client)

    def close(self) -> None:
        """Stop listening and close all connections. In a forked child the parent's stay as they are."""
        for client in self._connections:
            client.close()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the client may be gone already
            client, _ = self._listener.accept()
            if len(self._connections) >= MOST_CONNECTIONS:
                client.close()
                return
            client.setblocking(False)
            self._connections[client] = time.monotonic() + LONGEST_CONNECTION_S
            self._selector.register(client, selectors.EVENT_READ)
            self._go_on(client, self._serve(client))

    def _go_on(self, client: socket.socket, steps: Iterator[int]) -> None:
        """Take the next step of a connection, and close it after the last one."""
        try:
            self._selector.modify(client, next(steps), partial(self._go_on, client, steps))
        except (StopIteration, OSError):
            self._close(client)

    def _serve(self, client: socket.socket) -> Iterator[int]:
        """Answer a client; yields the event that the next step waits for."""
        request = b""
        while b"\r\n\r\n" not in request:
            yield selectors.EVENT_READ
            data = client.recv(4096)
            request += data
            if not data or len(request) > LARGEST_REQUEST_BYTES:
                return
        answer = self._answer(request)
        while answer:
            yield selectors.EVENT_WRITE
            answer = answer[client.send(answer) :]

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"only GET\n")
        if path == b"/health":
            why = self._unhealthy_reason()
            return _response("503 Service Unavailable" if why else "200 OK", f"{why or 'ok'}\n".encode())
        if path != b"/metrics":
            return _response("404 Not Found", b"see /metrics and /health\n")
        try:
            body = self._render()
        except Exception:  # it must not terminate the pool
            logger.exception("metrics could not be rendered")
            return _response("500 Internal Server Error", b"see the pool's log\n")
        return _response("200 OK", body, CONTENT_TYPE_LATEST, head=method == b"HEAD")

    def _close(self, client: socket.socket) -> None:
        self._connections.pop(client, None)
        self._selector.unregister(client)
        client.close()


def _response(status: str, body: bytes, content_type: str = "text/plain", *, head: bool = False) -> bytes:
    headers = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + (b"" if head else body)


class PoolCollector(Collector):
    """Counts and times of a pool's children, ended ones included, from their files; its report, and their memory."""

    def __init__(self, folder: Path, report: PoolReport, memory_bytes: int) -> None:
        self._folder, self._report, self._memory_bytes = folder, report, memory_bytes

    def collect(self) -> Iterator[Metric]:
        files = []
        for path in sorted(self._folder.glob("*.db")):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size:  # a child creates an empty file and then sets its size
                    files.append(str(path))
        yield from MultiProcessCollector.merge(files)
        report, memory_bytes = self._report, self._memory_bytes
        up = float(any(child["ready"] for child in report.children))
        gauges: tuple[tuple[str, str, float | None], ...] = (
            ("switchyard_worker_up", "1 while the pool has a child that works.", up),
            ("switchyard_worker_slots", "Messages that the pool can run at once.", report.slots),
            ("switchyard_worker_slots_busy", "Messages that the pool runs now.", report.busy),
            ("switchyard_worker_memory_bytes", "Memory of the pool's children, shared pages split.", memory_bytes),
            ("switchyard_worker_memory_limit_bytes", "Memory limit of the pool's container, if any.", memory_here()),
        )
        for name, text, value in gauges:
            gauge = GaugeMetricFamily(name, text, labels=["pool"])
            if value is not None:
                gauge.add_metric([report.pool], value)
            yield gauge
        text = "Children that ended and were started again."
        restarts = CounterMetricFamily("switchyard_worker_restarts", text, labels=["pool", "reason"])
        for reason, count in sorted(report.restarts.items()):
            restarts.add_metric([report.pool, reason], count)
        yield restarts


def exposition(folder: Path, report: PoolReport, memory_bytes: int) -> bytes:
    """Return a pool's metrics as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(PoolCollector(folder, report, memory_bytes))
    return generate_latest(registry)
