"""Values that a broker reports: dead letters, unreadable messages, figures of queues, and pages of a listing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")

# Whole number that Lua and JavaScript keep exactly: a count, a size in bytes, a time in ms.
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

# Result of a move of a dead letter: "moved", also by an earlier call; "gone": there is none; "newer": the
# message died again since; "unread": it cannot be read, or may not be sent; "full": its queue has
# no room.
Moved = Literal["moved", "gone", "newer", "unread", "full"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, as stored in its dead list. Times in ms since the epoch.

    Args:
        queue: Name of the queue it belongs to (``webhook``, never ``webhook-retry``).
        message: The message as Dramatiq encodes it: queue_name, actor_name, args, kwargs, options, …
        reason: ``exhausted``, ``permanent``, ``poison``, ``suspected_poison`` or ``time_limit``.
        exception: Class name; ``error``: its text; ``traceback``: formatted.
        attempts: Times it was started; ``duration_ms``: run time of the last.
        fingerprint: Same for failures with one cause: of actor, exception and the traceback's frames.
    """

    id: str
    queue: str
    actor: str
    message: dict[str, Any]
    reason: str
    exception: str
    error: str
    traceback: str
    attempts: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    enqueued_at: Whole
    died_at: Whole
    duration_ms: Whole
    fingerprint: str


class Unreadable(msgspec.Struct, frozen=True):
    """Bytes from a queue that are no message, the first 4 KiB of them, kept for inspection."""

    id: str
    queue: str
    raw: bytes
    size_bytes: Whole
    error: str
    seen_at: Whole


class LaneStats(msgspec.Struct, frozen=True):
    """Figures of a lane (a queue or a retry lane). Ages in ms; ``None`` when nothing waits."""

    name: str
    waiting: int
    scheduled: int
    running: int
    oldest_age_ms: int | None

    @property
    def total(self) -> int:
        """Messages of the lane, wherever they are."""
        return self.waiting + self.scheduled + self.running


class QueuePause(msgspec.Struct, frozen=True):
    """Pause of a queue; times in ms since the epoch, ``None`` where it is not known, or has no end."""

    since: Whole | None = None
    until: Whole | None = None
    by: str = ""
    reason: str = ""


class ActorPause(msgspec.Struct, frozen=True):
    """Pause of an actor, or of one value of an argument of it. Times in ms since the epoch by the server's clock.

    Args:
        token: The last token of the queue family when it began.
        until: When it ends by itself; 0 for never.
        argument: Name of the argument; "" where all messages of the actor are paused.
        position: Its position in calls without names, from 1; ``None`` where it has none.
        value: Its JSON value.
        calls: Of an open circuit the actors that it stops, each with the argument's position; ``actor`` is its name
            then, which no actor has, and ``until`` the time of its next probe.
        times: How often it opened without a success between; 0 when it is closed, and its messages become due.
        probe: Id of the message that may start, "*" for the next one that comes.
        slot: Place of a circuit's messages among those that are put off.
    """

    since: Whole
    until: Whole
    token: Whole
    actor: str
    argument: str = ""
    position: Whole | None = None
    value: Any = None
    by: str = ""
    reason: str = ""
    calls: Mapping[str, Whole] | None = None
    times: Whole = 0
    probe: str = ""
    slot: Whole = 0

    @property
    def is_open(self) -> bool:
        """Return whether it is a circuit that is open."""
        return self.calls is not None and self.times > 0

    @property
    def dependency(self) -> str:
        """Name of the dependency of an open circuit; "" for the pause of an actor."""
        return "" if self.calls is None else self.actor.removeprefix(CIRCUIT)

    def stops(self, actor: str) -> bool:
        """Return whether messages of an actor wait for its end."""
        return actor == self.actor if self.calls is None else actor in self.calls

    @property
    def field(self) -> str:
        """Name by which a queue family keeps it."""
        return field_of(self.actor, self.argument, self.value)

    @property
    def named(self) -> str:
        """The actor, with the argument's value if only that is paused: ``sync_customer with customer_id=7``."""
        return f"{self.actor} with {self.only}" if self.argument else self.actor

    @property
    def only(self) -> str:
        """The argument's value if only that is paused, such as ``customer_id=7``; "" where all of the actor is."""
        return f"{self.argument}={shown_json(self.value)}" if self.argument else ""


# Begins the name of a circuit, which is no actor's for its space.
CIRCUIT: Final = "circuit "


def shown_json(value: Any) -> str:
    return str(msgspec.json.encode(value), "utf-8", "replace")


def field_of(actor: str, argument: str, value: Any) -> str:
    """Return the name by which a queue family keeps a pause of an actor."""
    return f"{actor}\n{argument}={shown_json(value)}" if argument else actor


class OpenCircuit(msgspec.Struct, frozen=True):
    """An open circuit of a queue, and how many messages it has put off."""

    pause: ActorPause
    waiting: int


class QueueStats(msgspec.Struct, frozen=True):
    """Figures of a queue family.

    Args:
        parked: Scheduled messages that wait for a worker that knows their actor.
        oldest_held_age_ms: Time since the oldest message that a worker holds was ready, of the live lane and the
            isolated one; ``None`` where none is held, or where it was not asked for.
        issued: Attempts that were ever handed to workers; ``None`` where they are not counted.
        yields: By actor, sends that met a unique key which another unfinished message held.
        sends: By actor, messages that were enqueued; keys with a line break count those due in 2**n minutes or later.
    """

    queue: str
    live: LaneStats
    retry: LaneStats
    dead: int
    quarantined: int
    paused: bool = False
    parked: int = 0
    pause: QueuePause | None = None
    oldest_held_age_ms: int | None = None
    issued: int | None = None
    yields: Mapping[str, int] = {}
    sends: Mapping[str, int] = {}
    circuits: tuple[OpenCircuit, ...] = ()

    @property
    def oldest_unfinished_age_ms(self) -> int | None:
        """Age of the oldest message that waits or is held; ``None`` when there is none."""
        ages = [age for age in (self.live.oldest_age_ms, self.oldest_held_age_ms) if age is not None]
        return max(ages, default=None)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a listing. ``cursor`` leads to the next page; ``None`` on the last."""

    items: Sequence[T]
    cursor: int | None = None
