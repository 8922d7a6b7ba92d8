"""Keeps the leases of children, takes back those of children that died, and sweeps up what lapsed elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import redis

from broker.errors import BrokerUnavailable
from broker.keys.queue_keys import Lane
from broker.queue.operations import LEASE_MS, QueueOperations
from broker.queue.results import Lease, Reclaimed

RENEW_S: Final = 4.0
SWEEP_S: Final = 2.0
# A turn of a supervisor's loop may wait so long for the server, and for one answer of it.
TICK_S: Final = 1.0
ANSWER_S: Final = 0.5
# After an answer that did not come.
AWAY_S: Final = 1.0
AWAY_IN_A_HURRY_S: Final = 0.25

# As many words as a reclaim takes; a child with more slots gets the rest of what it ran back uncounted.
FINISHED_AT_ONCE: Final = 100
RUNNING_AT_ONCE: Final = 300

LaneKey = tuple[str, Lane]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Left:
    """What a child left of a lane that is not to go back with the rest.

    Args:
        finished: Id and token of what it had worked off, its acknowledgement not confirmed.
        running: Ids that it ran when it ended.
        cause: What ended it.
        keeper: Child whose owner of this lane gets what ran, under new tokens.
    """

    finished: Sequence[tuple[bytes, bytes]] = ()
    running: Sequence[str] = ()
    cause: str = ""
    keeper: str = ""


@dataclass(slots=True)
class _Queue:
    """A family that is served, with the times of its next renewal and sweep."""

    family: QueueOperations
    renew_at_s: float = 0.0
    sweep_at_s: float = 0.0


@dataclass(slots=True)
class _Child:
    lanes: tuple[LaneKey, ...]
    joined: set[LaneKey] = field(default_factory=set)
    until_s: dict[LaneKey, float] = field(default_factory=dict)
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _Reclaim:
    child: str
    key: LaneKey
    left: Left


class LeaseKeeper:
    """Holds the leases of children on behalf of their parent, which never holds up a loop for more than a second.

    No thread of its own: call :meth:`tick` whenever :meth:`seconds_to_next` is over. Not for several threads at once.

    A server that is away is logged once, and asked again every second. What could not be reclaimed meanwhile is kept
    until it can.

    Args:
        families: Queue -> its family, on a :class:`broker.redis.calls.RedisCalls` that nobody else uses.
        lanes: Lanes that a child may serve. All their families are swept.
        reclaimed: Told child, lane and what became of its messages, now or at a later tick.
    """

    def __init__(
        self,
        families: Mapping[str, QueueOperations],
        lanes: Sequence[LaneKey],
        *,
        reclaimed: Callable[[str, LaneKey, Reclaimed], None] = lambda child, key, answer: None,
    ) -> None:
        self._lanes = tuple(lanes)
        self._told = reclaimed
        self._queues = {queue: _Queue(families[queue]) for queue, _ in self._lanes}
        self._children: dict[str, _Child] = {}
        self._lost: dict[str, None] = {}
        self._reclaims: list[_Reclaim] = []
        self._away_until_s: float | None = None
        self._again_after_s = AWAY_S
        self._unanswered = 0

    def adopt(self, child: str, lanes: Sequence[LaneKey] | None = None) -> None:
        """Give a child, whose name nobody ever had, its leases at the next tick, and renew them from then on.

        Args:
            lanes: Those it serves; by default all.
        """
        self._children[child] = _Child(tuple(lanes) if lanes is not None else self._lanes)

    def has_leases(self, child: str) -> bool:
        """Say whether the child may fetch."""
        found = self._children.get(child)
        return found is not None and len(found.joined) == len(found.lanes)

    def leased_until_s(self, child: str) -> float:
        """Return the monotonic time until which the child's leases last for sure; 0 as long as it has not all."""
        found = self._children.get(child)
        if found is None or found.lost or not self.has_leases(child):
            return 0.0
        return min(found.until_s.values())

    @property
    def away(self) -> bool:
        """Whether the server did not answer the last time."""
        return self._away_until_s is not None

    @property
    def silent(self) -> bool:
        """Whether the server did not answer twice in a row."""
        return self._unanswered > 1

    def hurry(self) -> None:
        """Ask the server at the next tick, and soon again where it does not answer: little time is left."""
        self._again_after_s = AWAY_IN_A_HURRY_S
        if self._away_until_s is not None:
            self._away_until_s = time.monotonic()
        for queue in self._queues.values():
            queue.sweep_at_s = 0.0

    @property
    def settled(self) -> bool:
        """Whether everything that was to be taken back is."""
        return not self._reclaims

    def seconds_to_next(self) -> float:
        """Return in how many seconds something is due."""
        now = time.monotonic()
        if self._away_until_s is not None and self._away_until_s > now:
            return self._away_until_s - now
        if self._reclaims or not all(map(self.has_leases, self._children)):
            return 0.0
        times = [queue.sweep_at_s for queue in self._queues.values()]
        if self._children:
            times += [queue.renew_at_s for queue in self._queues.values()]
        return max(min(times, default=now + SWEEP_S) - now, 0.0)

    def tick(self) -> list[str]:
        """Do what is due: join, renew, reclaim, sweep. Takes a second at most and raises nothing for a server away.

        Returns:
            Children that lost a lease since the last tick: their messages belong to others, they must not go on.
        """
        self._within_a_tick(self._work)
        lost, self._lost = list(self._lost), {}
        return lost

    def reclaim(self, child: str, left: Mapping[LaneKey, Left] | None = None) -> None:
        """Take a dead child's messages back to the heads of their lanes, at once or as soon as the server answers."""
        found = self._children.pop(child, None)
        self._lost.pop(child, None)
        lanes = found.lanes if found is not None else self._lanes
        self._reclaims += [_Reclaim(child, key, (left or {}).get(key, Left())) for key in lanes]
        self._within_a_tick(self._reclaim_all)

    def forget(self, child: str) -> None:
        """Give up the leases of a child that drained, and take back whatever it left nevertheless."""
        self.reclaim(child)

    def _within_a_tick(self, act: Callable[[_Budget], None]) -> None:
        now = time.monotonic()
        if self._away_until_s is not None and now < self._away_until_s:
            return
        try:
            act(_Budget(now + TICK_S))
        except (BrokerUnavailable, redis.RedisError) as error:
            if self._away_until_s is None:
                logger.warning("leases are not renewed, the broker does not answer: %s", error)
            self._unanswered += 1
            self._away_until_s = time.monotonic() + self._again_after_s
        except _Spent:
            pass  # the rest is due still
        else:
            if self._away_until_s is not None:
                logger.info("the broker answers, leases are renewed again")
            self._away_until_s = None
            self._unanswered = 0

    def _work(self, budget: _Budget) -> None:
        # Renewed before anything lapsed is looked for: after an outage the own leases may be among it.
        for name, queue in self._queues.items():
            if time.monotonic() >= queue.renew_at_s:
                self._renew(name, queue, budget)
        for name, child in self._children.items():
            for key in child.lanes:
                if key not in child.joined:
                    asked_s = time.monotonic()
                    self._queues[key[0]].family.join(owner_of(name, key), budget_s=budget.left())
                    child.joined.add(key)
                    child.until_s[key] = asked_s + LEASE_MS / 1000
        self._reclaim_all(budget)
        for name, queue in self._queues.items():
            if time.monotonic() >= queue.sweep_at_s:
                self._sweep(name, queue, budget)

    def _renew(self, name: str, queue: _Queue, budget: _Budget) -> None:
        owners = {
            owner_of(child, key): (child, key)
            for child, found in self._children.items()
            for key in found.joined
            if key[0] == name and not found.lost
        }
        if owners:
            asked_s = time.monotonic()
            lost = queue.family.renew(list(owners), budget_s=budget.left())
            for child, key in owners.values():
                self._children[child].until_s[key] = asked_s + LEASE_MS / 1000
            for owner in lost:
                child, _ = owners[owner]
                self._children[child].lost = True
                self._lost[child] = None
        queue.renew_at_s = time.monotonic() + RENEW_S

    def _sweep(self, name: str, queue: _Queue, budget: _Budget) -> None:
        own = {owner_of(child, key) for child, found in self._children.items() for key in found.lanes}
        for owner in queue.family.lapsed(budget_s=budget.left()):
            if owner in own:
                continue
            found = queue.family.reclaim(owner, only_lapsed=True, budget_s=budget.left())
            if found is not None:
                logger.warning("the lease of %s in %s lapsed; %d messages went back", owner, name, found.returned)
        queue.sweep_at_s = time.monotonic() + SWEEP_S

    def _reclaim_all(self, budget: _Budget) -> None:
        while self._reclaims:
            due = self._reclaims[0]
            family, owner, left = self._queues[due.key[0]].family, owner_of(due.child, due.key), due.left
            finished = [Lease(owner, id_, token) for id_, token in left.finished]
            if len(finished) > FINISHED_AT_ONCE:
                family.ack(owner, finished, budget_s=budget.left())
                finished = []
            found = family.reclaim(
                owner,
                finished=finished,
                running=left.running[:RUNNING_AT_ONCE],
                cause=left.cause,
                keeper=owner_of(left.keeper, due.key) if left.keeper else "",
                budget_s=budget.left(),
            )
            self._reclaims.pop(0)
            if found is not None:
                self._told(due.child, due.key, found)


class _Spent(Exception):
    """The time of a tick is used up."""


@dataclass(frozen=True, slots=True)
class _Budget:
    deadline_s: float

    def left(self) -> float:
        """Return how long the next answer may take, in seconds."""
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0.01:
            raise _Spent
        return min(left_s, ANSWER_S)


def owner_of(child: str, key: LaneKey) -> str:
    """Return the owner that is a child's consumer of a lane."""
    return f"{child}/{key[1]}"
