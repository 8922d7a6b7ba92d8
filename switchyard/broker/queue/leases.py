"""Leases of child processes: join, renew and reclaim them, and sweep those that lapsed elsewhere."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

import msgspec
import redis

from switchyard.broker.errors import BrokerFull, BrokerRefused, BrokerUnavailable
from switchyard.broker.keys import Lane
from switchyard.broker.queue.operations import LEASE_MS, Lease, QueueOperations, Reclaimed
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.own_keys import note

# Longest time of a tick, and of one answer within it: a supervisor's loop waits that long for the server.
TICK_S: Final = 1.0
ANSWER_S: Final = 0.5
# Pause before a refused duty is tried again.
REFUSED_S: Final = 1.0

LeaseDuty = Literal["renewal", "join", "report", "reclaim", "sweep"]
DUTIES: Final[tuple[LeaseDuty, ...]] = ("renewal", "join", "report", "reclaim", "sweep")

logger = logging.getLogger(__name__)


class TickExhausted(Exception):
    """The time of a tick is used up; the rest of its work is left to the next one."""


class TickBudget(msgspec.Struct, frozen=True):
    """Time that a tick has left, until a monotonic deadline."""

    deadline_s: float

    def left(self) -> float:
        """Return how many seconds the next answer may take, at most 0.5; ``TickExhausted`` with under 10 ms left."""
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0.01:
            raise TickExhausted
        return min(left_s, ANSWER_S)


@dataclass(slots=True)
class ServedQueue:
    """A queue in which leases are kept: when each duty is due next, and which steps the server refused last time."""

    operations: QueueOperations
    due_s: dict[LeaseDuty, float] = field(default_factory=dict)
    refused: set[LeaseDuty] = field(default_factory=set)

    def attempt(self, duty: LeaseDuty, act: Callable[[], None], *, again_s: float = 0.0) -> None:
        """Do a duty, due again in ``again_s``. One that the server refuses is logged once and due again in a second.

        Where queues live at several places so is one whose place does not answer, and with it every other duty of the
        queue: the queues of the other places go on.

        Raises:
            BrokerUnavailable: the only server did not answer.
            TickExhausted: the tick has no time left for the duty.
        """
        name = self.operations.keys.queue
        try:
            act()
        except TickExhausted:
            raise
        except Exception as error:
            if isinstance(error, BrokerUnavailable) and not isinstance(error, BrokerFull):
                if self.operations.calls.addon is None:
                    raise
                if not self.refused:
                    logger.warning("queue %s: its leases are not renewed, its node does not answer: %s", name, error)
                self.due_s.update(dict.fromkeys(DUTIES, time.monotonic() + REFUSED_S))
            elif duty not in self.refused:  # of any kind: whatever a key may hold, the supervisor goes on
                logger.error("queue %s: the broker refuses the lease %s, retried every second: %r", name, duty, error)
            self.refused.add(duty)
            self.due_s[duty] = time.monotonic() + REFUSED_S
            return
        self.due_s[duty] = time.monotonic() + again_s
        if duty in self.refused:
            self.refused.discard(duty)
            logger.info("queue %s: the broker accepts the lease %s again", name, duty)


RENEW_S: Final = 4.0
SWEEP_S: Final = 2.0
REPORT_S: Final = 1.0
# Pause after the server did not answer, and the same once poll_now() was called.
AWAY_S: Final = 1.0
AWAY_POLL_NOW_S: Final = 0.25

# A reclaim takes 500 arguments: two for a finished message, one for a running one. What a child ran beyond that is
# returned uncounted.
FINISHED_AT_ONCE: Final = 100
RUNNING_AT_ONCE: Final = 300

LaneKey = tuple[str, Lane]


class LaneLeftovers(msgspec.Struct, frozen=True):
    """Messages of a dead child that need special handling in one lane.

    Args:
        finished: Id and token of messages that were worked off, their acknowledgement not confirmed.
        running: Ids that ran when the child ended.
        cause: What ended the child.
        heir: Child whose owner of this lane gets the running ones, under new tokens.
    """

    finished: Sequence[tuple[bytes, bytes]] = ()
    running: Sequence[str] = ()
    cause: str = ""
    heir: str = ""


@dataclass(slots=True)
class _Child:
    lanes: tuple[LaneKey, ...]
    work: dict[LaneKey, str]
    reported: dict[LaneKey, str] = field(default_factory=dict)
    leased_until_s: dict[LaneKey, float] = field(default_factory=dict)
    lost: bool = False


class _Reclaim(msgspec.Struct, frozen=True):
    child: str
    key: LaneKey
    leftovers: LaneLeftovers


class LeaseKeeper:
    """Keep the leases of children on behalf of their parent, blocking its loop for at most a second.

    It has no thread of its own: call :meth:`tick` whenever :meth:`seconds_to_next` is over. Not thread-safe.

    A server that does not answer is logged once and asked again every second; pending reclaims are kept meanwhile. A
    duty that the server refuses for one queue is logged once and retried every second. The other queues go on.

    Args:
        queues: Queue -> its operations, on a :class:`switchyard.broker.redis.calls.RedisCalls` that nothing else uses.
        lanes: Lanes that a child may serve. All their queues are swept.
        reclaimed: Called with child, lane and the result of a reclaim, now or during a later tick.
    """

    def __init__(
        self,
        queues: Mapping[str, QueueOperations],
        lanes: Sequence[LaneKey],
        *,
        reclaimed: Callable[[str, LaneKey, Reclaimed], None] = lambda child, key, answer: None,
    ) -> None:
        self._lanes = tuple(lanes)
        self._reclaimed = reclaimed
        self._queues = {queue: ServedQueue(queues[queue]) for queue, _ in self._lanes}
        self._children: dict[str, _Child] = {}
        self._lost: dict[str, None] = {}
        self._reclaims: list[_Reclaim] = []
        self._away_until_s: float | None = None
        self._again_after_s = AWAY_S
        self._unanswered = 0

    def add_queue(self, operations: QueueOperations) -> None:
        """Keep leases in another queue as well, and sweep it. One that is known already is left as it is."""
        self._queues.setdefault(operations.keys.queue, ServedQueue(operations))

    def adopt(
        self, child: str, lanes: Sequence[LaneKey] | None = None, *, work: str = "", joined_s: float | None = None
    ) -> None:
        """Join the leases of a child, of a name never used before, during the next tick, and renew them from then on.

        ``lanes`` are those that it serves, by default all; ``work`` is its first record, see :meth:`report`. Without
        one, the end of its leases makes nothing a suspect. One that joined already, at the monotonic ``joined_s``, is
        not joined again: it may have lost its lease meanwhile.
        """
        lanes = tuple(lanes) if lanes is not None else self._lanes
        self._children[child] = found = _Child(lanes, dict.fromkeys(lanes, work))
        if joined_s is not None:
            found.leased_until_s = dict.fromkeys(lanes, joined_s + LEASE_MS / 1000)

    def report(self, child: str, work: Mapping[LaneKey, str]) -> None:
        """Record what a child runs in its lanes, in the text of ``report.lua``: changes, at most once a second a queue.

        Whoever finds the child's leases expired reads there which messages ran.
        """
        if (found := self._children.get(child)) is not None:
            found.work = dict(work)

    def leased_until_s(self, child: str) -> float:
        """Return the monotonic time until which the child's leases last for certain; 0 before it has them all.

        Lanes of a queue that refuses renewals or joins are left out, so that it does not stop the others; 0 when all
        refuse.
        """
        found = self._children.get(child)
        if found is None or found.lost:
            return 0.0
        sound = [key for key in found.lanes if not self._queues[key[0]].refused & {"renewal", "join"}]
        return min((found.leased_until_s.get(key, 0.0) for key in sound), default=0.0)

    @property
    def away(self) -> bool:
        """Whether the server did not answer the last call."""
        return self._away_until_s is not None

    @property
    def silent(self) -> bool:
        """Whether the server did not answer the last two calls."""
        return self._unanswered > 1

    @property
    def settled(self) -> bool:
        """Whether no reclaim is pending."""
        return not self._reclaims

    def poll_now(self) -> None:
        """Ask the server during the next tick, and every 250 ms while it does not answer."""
        self._again_after_s = AWAY_POLL_NOW_S
        if self._away_until_s is not None:
            self._away_until_s = time.monotonic()
        for queue in self._queues.values():
            queue.due_s.pop("sweep", None)

    def seconds_to_next(self) -> float:
        now_s = time.monotonic()
        if self._away_until_s is not None and self._away_until_s > now_s:
            return self._away_until_s - now_s
        times = [queue.due_s.get(duty, 0.0) for queue, duty, _, _ in self._duties()]
        return max(min(times, default=now_s + SWEEP_S) - now_s, 0.0)

    def tick(self) -> list[str]:
        """Join, renew, reclaim and sweep what is due, for at most a second. A server that is away raises nothing.

        Returns the children that lost a lease since the last tick: others have their messages, they must not go on.
        """
        self._within_a_tick(self._work)
        lost, self._lost = list(self._lost), {}
        return lost

    def reclaim(self, child: str, leftovers: Mapping[LaneKey, LaneLeftovers] | None = None) -> None:
        """Return an ended child's messages to the heads of their lanes, now or as soon as the server answers."""
        found = self._children.pop(child, None)
        self._lost.pop(child, None)
        lanes = found.lanes if found is not None else self._lanes
        self._reclaims += [_Reclaim(child, key, (leftovers or {}).get(key, LaneLeftovers())) for key in lanes]
        self._within_a_tick(partial(self._work, only="reclaim"))

    def _within_a_tick(self, act: Callable[[TickBudget], None]) -> None:
        now_s = time.monotonic()
        if self._away_until_s is not None and now_s < self._away_until_s:
            return
        try:
            act(TickBudget(now_s + TICK_S))
        except BrokerUnavailable as error:
            if self._away_until_s is None:
                logger.warning("leases are not renewed, the broker does not answer: %s", error)
            self._unanswered += 1
            self._away_until_s = time.monotonic() + self._again_after_s
        except TickExhausted:
            pass
        else:
            if self._away_until_s is not None:
                logger.info("the broker answers, leases are renewed again")
            self._away_until_s = None
            self._unanswered = 0

    def _work(self, budget: TickBudget, *, only: LeaseDuty | None = None) -> None:
        for queue, duty, again_s, act in self._duties():
            if only in (None, duty) and time.monotonic() >= queue.due_s.get(duty, 0.0):
                queue.attempt(duty, partial(act, budget), again_s=again_s)

    def _duties(self) -> Iterator[tuple[ServedQueue, LeaseDuty, float, Callable[[TickBudget], None]]]:
        """Yield what is to be done in the queues, each with the time after which it is due again.

        Renewals come before the sweeps: after an outage the own leases may be among the lapsed ones.
        """
        if self._children:
            for name, queue in self._queues.items():
                yield queue, "renewal", RENEW_S, partial(self._renew, name, queue)
        for name, child, key in self._unjoined():
            yield self._queues[key[0]], "join", 0.0, partial(self._join, name, child, key)
        for name in {key[0] for _, _, key in self._unreported()}:
            yield self._queues[name], "report", REPORT_S, partial(self._report, name, self._queues[name])
        for due in list(self._reclaims):
            yield self._queues[due.key[0]], "reclaim", 0.0, partial(self._reclaim, due)
        for name, queue in self._queues.items():
            yield queue, "sweep", SWEEP_S, partial(self._sweep, name, queue)

    def _unjoined(self) -> list[tuple[str, _Child, LaneKey]]:
        return [
            (name, child, key)
            for name, child in self._children.items()
            if len(child.leased_until_s) < len(child.lanes)
            for key in child.lanes
            if key not in child.leased_until_s
        ]

    def _unreported(self) -> list[tuple[str, _Child, LaneKey]]:
        return [
            (name, child, key)
            for name, child in self._children.items()
            for key, reported in child.reported.items()
            if child.work.get(key, "") != reported
        ]

    def _report(self, name: str, queue: ServedQueue, budget: TickBudget) -> None:
        works = [(owner_of(child, key), found, key) for child, found, key in self._unreported() if key[0] == name]
        sent = {owner: found.work[key] for owner, found, key in works}
        queue.operations.report(sent, budget_s=budget.left())
        for _, found, key in works:
            found.reported[key] = found.work[key]

    def _join(self, name: str, child: _Child, key: LaneKey, budget: TickBudget) -> None:
        asked_s = time.monotonic()
        work = child.work.get(key, "")
        self._queues[key[0]].operations.join(owner_of(name, key), work=work, budget_s=budget.left())
        if work:
            child.reported[key] = work
        child.leased_until_s[key] = asked_s + LEASE_MS / 1000

    def _renew(self, name: str, queue: ServedQueue, budget: TickBudget) -> None:
        owners = {
            owner_of(child, key): (child, key)
            for child, found in self._children.items()
            for key in found.leased_until_s
            if key[0] == name and not found.lost
        }
        if not owners:
            return
        asked_s = time.monotonic()
        lost = queue.operations.renew(list(owners), budget_s=budget.left())
        for child, key in owners.values():
            self._children[child].leased_until_s[key] = asked_s + LEASE_MS / 1000
        for owner in lost:
            child, _ = owners[owner]
            self._children[child].lost = True
            self._lost[child] = None

    def _sweep(self, name: str, queue: ServedQueue, budget: TickBudget) -> None:
        own = {owner_of(child, key) for child, found in self._children.items() for key in found.lanes}
        for owner in queue.operations.lapsed(budget_s=budget.left()):
            if owner in own:
                continue
            try:
                found = queue.operations.reclaim(owner, only_lapsed=True, budget_s=budget.left())
            except BrokerRefused as error:  # of one owner, whose hold cannot be read; it must not hold up the others
                note(queue.operations.keys.hold(owner), error)
                continue
            if found is not None:
                (logger.warning if found.returned else logger.info)(
                    "the lease of %s in %s lapsed; %d messages went back; %d of them ran, and run alone from now on",
                    owner, name, found.returned, len(found.suspects),
                )  # fmt: skip

    def _reclaim(self, due: _Reclaim, budget: TickBudget) -> None:
        queue, owner, leftovers = self._queues[due.key[0]].operations, owner_of(due.child, due.key), due.leftovers
        finished = [Lease(owner, id_, token) for id_, token in leftovers.finished]
        if len(finished) > FINISHED_AT_ONCE:
            queue.ack(owner, finished, budget_s=budget.left())
            finished = []
        found = queue.reclaim(
            owner,
            finished=finished,
            running=leftovers.running[:RUNNING_AT_ONCE],
            cause=leftovers.cause,
            heir=owner_of(leftovers.heir, due.key) if leftovers.heir else "",
            budget_s=budget.left(),
        )
        self._reclaims.remove(due)
        if found is not None:
            self._reclaimed(due.child, due.key, found)


def owner_of(child: str, key: LaneKey) -> str:
    """Return the owner that is a child's consumer of a lane."""
    return f"{child}/{key[1]}"


class SelfManagedLeases:
    """Owners of this process, one for each lane and consuming thread, until it stops, on connections of their own.

    Two workers that shared an owner would take what the other has fetched for messages that nobody knows.

    ``lost`` is called in the renewing thread with an owner that lost its lease: others have its messages.
    """

    def __init__(self, client: redis.Redis, *, lost: Callable[[str], None]) -> None:
        self._calls = calls_on(client)
        self._keeper = LeaseKeeper({}, [])
        self._lost = lost
        # Each owner is a child of its own, because a lost owner's name cannot be used again.
        self._children: dict[str, tuple[LaneKey, threading.Thread]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="switchyard-leases", daemon=True)

    def owner(self, queue: QueueOperations, lane: Lane, *, in_use: Collection[str] = ()) -> str:
        """Return the owner that consumes a lane in this thread, or one of a thread that has ended. It has its lease.

        ``in_use`` are those of open consumers: they may have messages that this thread does not know.
        """
        key, here = (queue.keys.queue, lane), threading.current_thread()
        with self._lock:
            for child, (its, thread) in self._children.items():
                free = not thread.is_alive() and owner_of(child, key) not in in_use
                if its == key and (thread is here or free):
                    break
            else:
                child = f"worker.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
                own, joined_s = QueueOperations(self._calls, queue.keys), time.monotonic()
                own.join(owner_of(child, key))
                self._keeper.add_queue(own)
                self._keeper.adopt(child, [key], joined_s=joined_s)
                if not self._thread.is_alive():
                    self._thread.start()
            self._children[child] = key, here
            return owner_of(child, key)

    def drop(self, owner: str) -> bool:
        """Forget an owner that lost its lease, if it is known; :meth:`owner` makes another one for its lane."""
        with self._lock:
            for child, (key, _) in self._children.items():
                if owner_of(child, key) == owner:
                    del self._children[child]
                    self._keeper.reclaim(child)
                    return True
        return False

    def stop(self) -> None:
        """Stop renewing, and reclaim everything that these owners still hold."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for child in self._children:
                self._keeper.reclaim(child)
            self._children.clear()
        self._calls.close()

    def _renew(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                lost = set(self._keeper.tick())
                owners = [owner_of(child, key) for child, (key, _) in self._children.items() if child in lost]
                next_s = self._keeper.seconds_to_next()
            for owner in owners:
                self._lost(owner)
            self._stopping.wait(max(next_s, 0.05))
