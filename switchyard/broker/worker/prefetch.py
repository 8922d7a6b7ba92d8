"""A worker's fetches: the credit that its consumers share, the wait for a wake-up, and the queue to its threads.

``BLPOP`` of the wake-up list and the fetch that follows are sent together. The server holds both until another process
puts a token into the list, then runs one after the other: messages arrive one round trip earlier than if the fetch were
sent then.

Python's queues wake a waiting thread through a chain of locks made anew for each wait. That cost more than a third of a
worker's time with tasks that do nothing. Here each thread keeps one lock to wait on, and an item that is there is taken
without any waiting. (``queue.SimpleQueue`` is no way: on a busy machine a wait with a timeout may never end in
CPython 3.11, which then stops no worker.)
"""

import contextlib
import heapq
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty
from typing import Any, Final

from dramatiq.errors import QueueJoinTimeout

from switchyard.broker.held_message import HeldMessage
from switchyard.broker.redis.calls import (
    ANSWER_S,
    RECONNECT_S,
    RedisCalls,
    Word,
    is_of_client,
    is_unknown_script,
    read_answer,
)
from switchyard.broker.redis.scripts import Script

CELL_BYTES: Final = 8
# Further messages that a child holds are not written: after a crash they run alone once.
CELLS: Final = 1_024
HELD_BYTES: Final = CELLS * CELL_BYTES


class HeldMarks:
    """Cells (64 bits) with the marks of held messages, 0 where there is none. Any thread may write."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._free = deque(range(len(cells)))

    def hold(self, mark: int) -> int | None:
        """Write the mark of a message that was received; return its cell, or ``None`` when all are in use."""
        try:
            cell = self._free.popleft()
        except IndexError:
            return None
        self._cells[cell] = mark
        return cell

    def release(self, cell: int) -> None:
        self._cells[cell] = 0
        self._free.append(cell)

    def read(self) -> list[int]:
        return [mark for mark in self._cells.tolist() if mark]


# A fetch of one message costs as much as one of many: while prefetched messages remain, a fetch waits for more credit,
# at most this long.
WORTH_WAITING_S = 0.002

# Prefetched messages cover the time until the next fetch is answered, on a busy machine or by a server 1 ms away.
PREFETCHED_S = 0.010
# They wait behind one that takes long, so a slot has at most this many.
PREFETCHED_A_SLOT = 16


class PrefetchCredit:
    """Credit for messages. Waiting consumers acquire it in turn, and each gets a fair share.

    More is prefetched while messages are short: with tasks of microseconds and a server 1 ms
    away, fetches could not follow often enough otherwise.

    ``consumers`` is the number of those that use it.

    Args:
        limit: Messages that may be held at first, running ones included. At most ``slots``: nothing is prefetched.
        slots: Messages that run at once.
    """

    def __init__(self, limit: int, slots: int) -> None:
        self.consumers = 0
        self._least = max(limit - slots, 0)
        self._most = max(self._least, PREFETCHED_A_SLOT * slots) if self._least else 0
        self._prefetched = self._least
        self._free = limit
        self._finished = 0
        self._since = time.monotonic()
        self._waiting: deque[object] = deque()
        self._lock = threading.Lock()  # acquired itself where no thread waits: a condition does so in Python
        self._changed = threading.Condition(self._lock)

    def acquire(self, who: object, *, timeout_s: float) -> int:
        """Return how many messages ``who`` may fetch; 0 when there is no credit in time."""
        give_up = time.monotonic() + timeout_s
        fetch_at: float | None = None
        with self._changed:
            self._waiting.append(who)
            try:
                while True:
                    now = time.monotonic()
                    first = self._free > 0 and self._waiting[0] is who
                    if first and fetch_at is None:
                        fetch_at = now + WORTH_WAITING_S
                    if first and fetch_at is not None and (self._is_worth() or now >= fetch_at):
                        self._fit_prefetched(now)
                        share = max(1, self._free // len(self._waiting))
                        self._free -= share
                        return share
                    if now >= give_up:
                        return 0
                    self._changed.wait((fetch_at if first and fetch_at is not None else give_up) - now)
            finally:
                self._waiting.remove(who)
                if self._waiting and self._free > 0:
                    self._changed.notify_all()

    def release(self, count: int) -> None:
        if count == 0:
            return
        with self._lock:
            had = self._free
            self._free += count
            if self._waiting and self._free > 0 and (had <= 0 or self._is_worth()):
                self._changed.notify_all()

    def release_finished(self) -> None:
        """Return the credit of a finished message."""
        self._finished += 1  # a lost count changes what is prefetched by one
        self.release(1)

    def _is_worth(self) -> bool:
        return self._free >= max(1, self._prefetched // 2)

    def _fit_prefetched(self, now: float) -> None:
        elapsed_s = now - self._since
        if elapsed_s < PREFETCHED_S:
            return
        wanted = int(self._finished * PREFETCHED_S / elapsed_s)
        # Credit in use cannot be revoked: less is prefetched as far as there is free credit.
        change = max(min(max(wanted, self._least), self._most) - self._prefetched, 1 - self._free)
        self._free += change
        self._prefetched += change
        self._finished, self._since = 0, now


class KeptSlots:
    """Credit of a worker that serves several latency classes: a free slot for each class shorter than a message's own.

    Messages of a rank and of all longer ones together hold at most ``slots - rank`` slots, so that rank 0 always finds
    one that no longer promise can take. What waits is served by rank, and in turn within one. Nothing is prefetched.

    Args:
        ranks: Number of latency classes, no more than the slots.
    """

    def __init__(self, slots: int, ranks: int) -> None:
        self._slots = slots
        self._held = [0] * ranks
        self._waiting: list[tuple[int, int]] = []  # rank and turn
        self._turns = itertools.count()
        self._changed = threading.Condition()

    def acquire(self, rank: int, *, timeout_s: float) -> int:
        """Return how many messages of a rank may be fetched; 0 when no slot is free for it in time."""
        with self._changed:
            mine = rank, next(self._turns)
            self._waiting.append(mine)
            try:
                if not self._changed.wait_for(lambda: min(self._waiting) == mine and self._free(rank) > 0, timeout_s):
                    return 0
                count = max(1, self._free(rank) // sum(other == rank for other, _ in self._waiting))
                self._held[rank] += count
                return count
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()

    def release(self, rank: int, count: int) -> None:
        if count:
            with self._changed:
                self._held[rank] -= count
                self._changed.notify_all()

    def _free(self, rank: int) -> int:
        return min(self._slots - least - sum(self._held[least:]) for least in range(rank + 1))


class LaneCredit:
    """Credit of the lanes of one rank."""

    # The wake-up of a lane reserves slots for the next fetch where there is one consumer: here it would keep others'.
    consumers = 2

    def __init__(self, kept: KeptSlots, rank: int) -> None:
        self._kept, self._rank = kept, rank

    def acquire(self, who: object, *, timeout_s: float) -> int:
        return self._kept.acquire(self._rank, timeout_s=timeout_s)

    def release(self, count: int) -> None:
        self._kept.release(self._rank, count)

    def release_finished(self) -> None:
        self._kept.release(self._rank, 1)


class WorkQueue:
    """As much of ``queue.PriorityQueue`` as :class:`dramatiq.Worker` uses.

    Items are ordered by their ``priority``; where the server does not order messages, by the ``level`` of each message.
    """

    def __init__(self, level: Callable[[Any], int] | None = None) -> None:
        self._level = level
        self.unfinished_tasks = 0
        self._heap: list[tuple[int, int, Any]] = []
        self._order = itertools.count()
        self._waiting: deque[threading.Lock] = deque()
        self._own = threading.local()
        self._lock = threading.Lock()
        self._ended = False
        # Whether threads wait until there is work or the end, however short their timeout: whoever sets it calls end().
        self.patient = False
        self._finished = threading.Condition(self._lock)

    def put(self, item: Any) -> None:
        """Add an item: the next one of its priority, or level, after those that are there."""
        priority = item.priority if self._level is None else self._level(item.message)
        with self._lock:
            self.unfinished_tasks += 1
            heapq.heappush(self._heap, (priority, next(self._order), item))
            if self._waiting:
                self._waiting.popleft().release()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the item with the lowest priority number; ``queue.Empty`` when there was none in ``timeout`` seconds."""
        until_s = None if timeout is None or self.patient else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._heap:
                    return heapq.heappop(self._heap)[2]
                if not block or self._ended:
                    raise Empty
                turn = self._turn()
                self._waiting.append(turn)
            if until_s is None:
                turn.acquire()
            elif not turn.acquire(timeout=max(until_s - time.monotonic(), 0)):
                block = False
                with self._lock:
                    if turn in self._waiting:
                        self._waiting.remove(turn)
                    else:
                        turn.acquire()  # it was this one's turn in this very moment

    def end(self) -> None:
        """Wake the threads that wait, now and later: their worker stops."""
        with self._lock:
            self._ended = True
            while self._waiting:
                self._waiting.popleft().release()

    def _turn(self) -> threading.Lock:
        """Return this thread's lock, taken: whoever releases it wakes the thread."""
        found = getattr(self._own, "turn", None)
        if found is None:
            found = self._own.turn = threading.Lock()
            found.acquire()
        return found

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def waiting(self) -> list[Any]:
        """Return the items that wait, in no order."""
        with self._lock:
            return [item for _, _, item in self._heap]

    def task_done(self) -> None:
        with self._lock:
            self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                self._finished.notify_all()

    def join(self) -> None:
        with self._lock:
            while self.unfinished_tasks:
                self._finished.wait()


def join(lane: str, works: Callable[[], bool], *, timeout: int | None, interval: int) -> None:
    """Wait until a lane has no work, polled every ``interval`` ms; ``QueueJoinTimeout`` after ``timeout`` ms."""
    give_up_s = None if timeout is None else time.monotonic() + timeout / 1000
    while works():
        if give_up_s is not None and time.monotonic() >= give_up_s:
            raise QueueJoinTimeout(lane)
        time.sleep(interval / 1000)


POLL_CANCELLATIONS_S = 0.25


class CancellationPoll:
    """Marks and reports messages in flight whose cancellation was requested: one round trip a queue, 4 times a second.

    The same round trip reads which actors are paused: messages that were fetched before may not have started yet.

    The first poll is due a quarter of a second after a message went in flight where none was: one that was requested
    before is found at its start. A worker with few messages thus reads nothing while each begins.
    """

    def __init__(self, report: Callable[[HeldMessage], None]) -> None:
        self._report = report
        # Queue -> paused actor -> token, of queues with such an actor; see QueueOperations.read_acts.
        self.paused: dict[str, dict[str, int]] = {}
        self._due_s: float | None = None  # None while nothing is in flight
        self._reading = threading.Lock()

    def run(self, in_flight: Mapping[str, HeldMessage]) -> None:
        """Read, if it is due. While one thread reads, others return at once."""
        due_s, now_s = self._due_s, time.monotonic()
        if not in_flight:
            self._due_s = None
            self.paused.clear()  # what is fetched from now on is newer
            return
        if due_s is None:
            self._due_s = now_s + POLL_CANCELLATIONS_S
            return
        if now_s < due_s or not self._reading.acquire(blocking=False):
            return
        try:
            self._due_s = now_s + POLL_CANCELLATIONS_S
            self._read(list(in_flight.values()))
        finally:
            self._reading.release()

    def _read(self, in_flight: list[HeldMessage]) -> None:
        by_queue: dict[str, list[HeldMessage]] = {}
        for held in in_flight:
            by_queue.setdefault(held.family.keys.queue, []).append(held)
        for queue, messages in by_queue.items():
            requested, paused = messages[0].family.read_acts([held.message_id for held in messages])
            if paused:
                self.paused[queue] = paused
            else:
                self.paused.pop(queue, None)
            for held in messages:
                if held.message_id in requested and not held.cancel_requested:
                    held.cancel_requested = True
                    self._report(held)


# The server ends the wait after this time without a token: a token that was lost with its consumer delays no longer,
# and a dead connection is noticed.
LONGEST_BLOCK_S: Final = 2
SILENT_S: Final = LONGEST_BLOCK_S + 3.0


class Wakeup:
    """One consumer's wait for the wake-up of its lane.

    It sends on a connection of :class:`switchyard.broker.redis.calls.RedisCalls` by itself, because no call of that
    class may block. After a ``BrokerUnavailable`` or ``BrokerRefused`` nothing is pending any more.
    """

    def __init__(self, calls: RedisCalls, key: str) -> None:
        self._calls = calls
        self._key = key
        self._connection: Any = None
        self._has_operation = False
        self._requested_s: float | None = None

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come."""
        return self._requested_s is not None

    def request(self, then: Script | None = None, keys: Sequence[str] = (), args: Sequence[Word] = ()) -> None:
        """Send the wait, and an operation that the server runs right after it."""
        try:
            if self._connection is None:
                self._connection = self._calls.acquire(self._key)
            connection = self._connection
            connection.socket_connect_timeout = RECONNECT_S
            connection.connect()
            command = list(connection.pack_command("BLPOP", self._key, LONGEST_BLOCK_S))
            if then is not None:
                command += connection.pack_command("EVALSHA", then.sha, len(keys), *keys, *args)
            connection.send_packed_command([b"".join(command)], check_health=False)
        except BaseException as error:
            self.disconnect()
            if is_of_client(error):
                raise self._calls.failed("BLPOP", error, self._key) from error
            raise
        self._has_operation = then is not None
        self._requested_s = time.monotonic()

    def wait(self, timeout_s: float) -> tuple[bool, Any] | None:
        """Return the answer, or ``None`` when it did not come in time and is still pending.

        First whether a token came: ``False`` when the server ended the wait. Then the answer of the operation that was
        sent ahead; ``None`` without one, and where the server did not know the script: the caller must run it.
        """
        connection, requested_s = self._connection, self._requested_s
        assert requested_s is not None  # noqa: S101  for the type checker: wait() follows request()
        try:
            if not connection.can_read(timeout=timeout_s):
                if time.monotonic() - requested_s > SILENT_S:
                    from redis import TimeoutError as NoAnswer

                    raise NoAnswer(f"no answer for {SILENT_S:g} s")
                return None
            notified = read_answer(connection, ANSWER_S) is not None
            fetch = None
            if self._has_operation:
                try:
                    fetch = read_answer(connection, ANSWER_S)
                except Exception as error:
                    if not is_unknown_script(error):
                        raise
        except BaseException as error:
            self.disconnect()
            if is_of_client(error):
                raise self._calls.failed("BLPOP", error, self._key) from error
            raise
        self._requested_s = None
        return notified, fetch

    def interrupt(self) -> None:
        """Shut the connection down, so that a wait in another thread ends with an error."""
        connection = self._connection
        socket_ = getattr(connection, "_sock", None)
        if socket_ is not None:
            with contextlib.suppress(OSError):
                # Not the shutdown of a TLS socket: it gives up TLS first, and the other thread reads what is encrypted.
                socket.socket.shutdown(socket_, socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """Abandon a pending wait. The server may have run the operation."""
        self._requested_s = None
        if self._connection is not None:
            self._connection.disconnect()
            self._calls.release(self._connection)
            self._connection = None
