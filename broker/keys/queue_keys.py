"""Names of the keys of one queue family: a queue, its retry lane, its dead list. All of them share one hash tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Lane = Literal["live", "retry", "alone"]
# What pools serve; and with the lane whose messages run alone, because one of them may take its worker down.
LANES: Final[tuple[Lane, Lane]] = ("live", "retry")
ALL_LANES: Final[tuple[Lane, Lane, Lane]] = (*LANES, "alone")


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """Key names of a family. ``docs/reference/keys.md`` is made from the docstrings.

    Args:
        base: Everything before the family's own part: ``<prefix>:{<queue>}:``.
        queue: Name of the queue, without ``-retry`` or ``-dead``.
    """

    base: str
    queue: str

    def lane_name(self, lane: Lane) -> str:
        """Name of a lane as actors and messages know it: ``webhook``, ``webhook-retry``, ``webhook-alone``."""
        return self.queue if lane == "live" else f"{self.queue}-{lane}"

    @property
    def bodies(self) -> str:
        """Hash: id of a message that waits, is scheduled or is leased -> its body."""
        return f"{self.base}bodies"

    def waiting(self, lane: Lane) -> tuple[str, str, str]:
        """Lists: ids that wait in a lane, next one first: of high, normal and low priority."""
        name = f"{self.base}{self.lane_name(lane)}"
        return f"{name}.high", name, f"{name}.low"

    def due(self, lane: Lane) -> str:
        """Sorted set: id that is scheduled in a lane -> when it is due, ms since the epoch by the server's clock."""
        return f"{self.base}{self.lane_name(lane)}.due"

    def parked(self, lane: Lane) -> str:
        """Sorted set: messages scheduled in a lane because no worker knew their actor or their arguments.

        Each is what it calls (JSON: actor, number of arguments by place, names), a line break, its id; all score 0. A
        list for workers that know it: the messages are scheduled with or without it. Expires 20 minutes after the last.
        """
        return f"{self.base}{self.lane_name(lane)}.parked"

    @property
    def known(self) -> str:
        """Hash: what parked messages call -> when a worker that knows it looked last, ms since the epoch."""
        return f"{self.base}known"

    def wakeup(self, lane: Lane) -> str:
        """List: at most one token, there when somebody should look at the lane. Idle consumers block on it."""
        return f"{self.base}{self.lane_name(lane)}.bell"

    @property
    def leases(self) -> str:
        """Sorted set: owner -> when its lease lapses, ms since the epoch; 0 for one that is being cleared."""
        return f"{self.base}leases"

    def hold(self, owner: str) -> str:
        """Hash: id leased to an owner -> fencing token; ``#`` -> number, first token and count of its last fetch."""
        return f"{self.base}hold:{owner}"

    @property
    def token(self) -> str:
        """String: the last fencing token that was given out."""
        return f"{self.base}token"

    @property
    def done(self) -> tuple[str, str]:
        """Hashes: finished id -> token that finished it. They take turns every 10 minutes, and expire."""
        return f"{self.base}done:0", f"{self.base}done:1"

    @property
    def notes(self) -> str:
        """Hash: what is remembered of few messages.

        ``level:<id>`` its priority (1 high, 3 low), ``key:<id>`` its unique key, ``crash:<id>`` how often it took its
        worker down, since when (ms since the epoch), and what happened last: a signal, ``limit`` when it was killed for
        its hard limit, ``alone`` when it was moved since; ``spent:<id>`` the last move and its token, ``cancel:<id>``
        that it is not to start, ``asked:<id>`` that it was asked to stop when it was leased.
        """
        return f"{self.base}notes"

    @property
    def unique(self) -> str:
        """Hash: unique key -> id of the message that holds it."""
        return f"{self.base}unique"

    @property
    def paused(self) -> str:
        """String: there while nothing of the family is handed out; since when, ms since the epoch."""
        return f"{self.base}paused"

    @property
    def refused(self) -> str:
        """String: why nothing may be enqueued, while the server would delete it. Lapses with whoever wrote it."""
        return f"{self.base}refused"

    @property
    def swept(self) -> str:
        """String: when lapsed leases were looked for last, ms since the epoch."""
        return f"{self.base}swept"

    @property
    def dead(self) -> str:
        """List: ids of dead letters, oldest first. Nothing consumes it."""
        return f"{self.base}{self.queue}-dead"

    @property
    def dead_letters(self) -> str:
        """Hash: id of a dead letter -> the letter as JSON."""
        return f"{self.base}{self.queue}-dead.letters"

    @property
    def quarantine(self) -> str:
        """List: unreadable messages as JSON, newest first."""
        return f"{self.base}{self.queue}-quarantine"

    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Return every key of the family but what its owners hold, each with the type that it has when it is there."""
        lists = [key for lane in ALL_LANES for key in (*self.waiting(lane), self.wakeup(lane))]
        lists += [self.dead, self.quarantine]
        hashes = [self.bodies, *self.done, self.dead_letters, self.notes, self.unique, self.known]
        scored = [*map(self.due, ALL_LANES), *map(self.parked, ALL_LANES), self.leases]
        texts = [self.token, self.swept, self.paused, self.refused]
        kinds = (("list", lists), ("hash", hashes), ("zset", scored), ("string", texts))
        return tuple((key, kind) for kind, keys in kinds for key in keys)

    def all_keys(self) -> tuple[str, ...]:
        """Return every key of the family but what its owners hold."""
        return tuple(key for key, _ in self.kinds())
