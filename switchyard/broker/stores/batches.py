"""Batches: jobs that are counted together, of any queues. A batch has a place of its own on the server.

A member's id is a UUID of version 8 that begins with the id of its batch: whatever moves a message keeps its
membership. The script that ends a member notes how, in the place of its queue. The scheduler carries these notes over
to the batches, each counted by the member's id, so that every step may be repeated.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

import msgspec

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import moment, number, read, utf8
from switchyard.broker.redis.scripts import script

ADD, COUNT, DROP = (script(name, folder="") for name in ("batch_add", "batch_count", "ends_drop"))
# An operator requeues what failed last week. A member takes about 70 bytes.
TTL_MS: Final = 7 * 24 * 3_600_000
AT_ONCE: Final = 500
CALLBACKS: Final = ("on_success", "on_failure", "on_complete")
STATES: Final = ("open", "done", "failed", "cancelled")
# Until the scheduler looks at a batch whose maker may have been killed before its next step.
FIRST_LOOK_MS: Final = 10_000
MEMBER: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
NAMESPACE: Final = uuid.UUID("5d2f8c61-0b7e-4a36-9c4d-1f6e2a9b7c30")

MemberState = Literal["open", "done", "failed", "cancelled"]
Outcome = Literal["done", "failed", "cancelled"]


def new_batch_id(seed: str = "") -> str:
    """Return the id of a batch, 12 hex digits: random, or the same for the same seed."""
    return (uuid.uuid5(NAMESPACE, seed) if seed else uuid.uuid4()).hex[:12]


def member_id(batch_id: str, seed: str) -> str:
    """Return the id of a member, the same for the same seed."""
    hex_ = uuid.uuid5(NAMESPACE, seed).hex
    return f"{batch_id[:8]}-{batch_id[8:]}-8{hex_[13:16]}-{hex_[16:20]}-{hex_[20:]}"


def callback_id(batch_id: str, name: str) -> str:
    """Return the id of a callback. It begins as that of a member, so that its batch is found; it is never added."""
    return member_id(batch_id, f"{batch_id} {name}")


def batch_of(message_id: str) -> str:
    """Return the id of the batch that a message belongs to, as a member or a callback; "" for none."""
    return message_id[:8] + message_id[9:13] if MEMBER.fullmatch(message_id) else ""


class BatchFacts(msgspec.Struct, frozen=True):
    """Facts of a batch that do not change. ``parent`` is the id of the job that made it, "" for none."""

    name: str
    tags: tuple[str, ...] = ()
    parent: str = ""


FACTS: Final = msgspec.json.Decoder(BatchFacts)


class BatchRecord(msgspec.Struct, frozen=True):
    """A batch as it is counted. Times are ms since the epoch, 0 for what has not happened.

    Args:
        state: ``open``, ``complete`` (closed, and every member has ended) or ``succeeded`` (all are done).
        sent: When each callback was sent, by its name.
        callbacks: Its callbacks, as they were given.
    """

    id: str
    name: str
    tags: tuple[str, ...]
    parent: str
    state: str
    open: int
    done: int
    failed: int
    cancelled: int
    created_at: int
    changed_at: int
    closed_at: int
    cancelled_at: int
    completed_at: int
    abandoned: bool
    sent: Mapping[str, int]
    callbacks: Mapping[str, bytes]

    @property
    def total(self) -> int:
        return self.open + self.ended

    @property
    def ended(self) -> int:
        return self.done + self.failed + self.cancelled


class Counted(NamedTuple):
    """Figures of a batch after a count, and the callbacks that are to be sent."""

    state: str
    open: int
    done: int
    failed: int
    cancelled: int
    due: tuple[str, ...]


class Members(NamedTuple):
    """Some members, each with its queue; ``cursor`` is where the next ones begin, "0" at the end."""

    found: dict[str, str]
    cursor: str


class Batches:
    """Write and read batches. Every method may be repeated, and may raise what ``RedisCalls.call`` raises."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls, self._keys = calls, keys

    def make(self, batch_id: str) -> None:
        """Put a batch on the list, before its first member is added."""
        self._calls.command("ZADD", self._keys.batches(), "NX", now_ms(), batch_id)
        self.look_again(batch_id, FIRST_LOOK_MS)

    def add(
        self,
        batch_id: str,
        members: Sequence[tuple[str, str]],
        *,
        facts: BatchFacts | None = None,
        callbacks: Mapping[str, bytes] | None = None,
    ) -> list[bool] | str:
        """Add members, each an id and its queue, at most 500; return which are open, and are to be sent.

        Args:
            facts, callbacks: Of a batch that may not be there yet.

        Returns:
            Or ``unknown``, or ``over`` when the batch is cancelled or has succeeded.
        """
        given = callbacks or {}
        args: list[Word] = [msgspec.json.encode(facts) if facts else "", *(given.get(name, b"") for name in CALLBACKS)]
        answer = self._calls.call(ADD, self._five(batch_id), [*args, *chain.from_iterable(members)])
        return str(answer, "ascii") if isinstance(answer, bytes) else [each == 1 for each in answer]

    def note(self, batch_id: str, *names: str) -> None:
        """Note that something happened to a batch that is there, now if it was not noted before.

        Args:
            names: ``closed``; ``abandoned``, which is for a closed one that cannot succeed; ``cancelled``; or ``sent:``
                with the name of a callback.
        """
        self._calls.pipeline([("HSETNX", self._keys.batch(batch_id), name, now_ms()) for name in names])

    def count(self, batch_id: str, ends: Iterable[tuple[str, Outcome]] = (), *, ttl_ms: int = TTL_MS) -> Counted | None:
        """Count how members ended, at most 500; ``None`` for an unknown batch."""
        args: list[Word] = [ttl_ms, *chain.from_iterable(ends)]
        state, *rest = self._calls.call(COUNT, self._five(batch_id), args)
        if state == b"unknown":
            return None
        is_open, done, failed, cancelled, *due = rest
        names = tuple(str(name, "ascii") for name in due)
        return Counted(str(state, "ascii"), is_open, done, failed, cancelled, names)

    def read(self, batch_ids: Sequence[str]) -> list[BatchRecord | None]:
        """Return batches; ``None`` for those that are unknown, or cannot be read."""
        commands: list[tuple[Word, ...]] = []
        for id_ in batch_ids:
            commands.append(("HGETALL", self._keys.batch(id_)))
            commands += [("HLEN", key) for key in self._keys.batch_members(id_)]
        found = self._calls.look(commands) if commands else []
        return [self._record(id_, *found[5 * n : 5 * n + 5]) for n, id_ in enumerate(batch_ids)]

    def newest(self, *, before: int | None = None, limit: int) -> list[tuple[str, int]]:
        """Return ids of batches with the time when each was made, newest first; ``before``: made before that time."""
        first = "+inf" if before is None else f"({before}"
        words = ("ZREVRANGEBYSCORE", self._keys.batches(), first, "-inf", "WITHSCORES", "LIMIT", 0, limit)
        [found] = self._calls.look([words])
        return [(str(id_, "ascii", "replace"), moment(at)) for id_, at in _pairs(found)]

    def members(self, batch_id: str, state: MemberState, *, cursor: str = "0", count: int = AT_ONCE) -> Members:
        """Return some members of a state, in no order."""
        key = self._keys.batch_members(batch_id)[STATES.index(state)]
        [after, found], *_ = self._calls.look([("HSCAN", key, cursor, "COUNT", count)])
        members = {str(id_, "ascii", "replace"): utf8(queue) for id_, queue in _pairs(found)}
        return Members(members, str(after, "ascii"))

    def unfinished(self, limit: int) -> list[str]:
        """Return batches that have not ended, or whose callbacks are not sent."""
        [found] = self._calls.look([("ZRANGE", self._keys.batches_due(), 0, limit - 1)])
        return [str(id_, "ascii", "replace") for id_ in found]

    def to_look_at(self, limit: int) -> list[str]:
        """Return batches whose time has come, oldest first."""
        words = ("ZRANGEBYSCORE", self._keys.batches_due(), "-inf", now_ms(), "LIMIT", 0, limit)
        return [str(id_, "ascii", "replace") for id_ in self._calls.command(*words)]

    def age_ms(self, batch_id: str) -> int:
        """Return how long ago a batch was put on the list, ms; one that is not there was long ago."""
        return now_ms() - moment(self._calls.command("ZSCORE", self._keys.batches(), batch_id) or 0)

    def look_again(self, batch_id: str, after_ms: int) -> None:
        self._calls.command("ZADD", self._keys.batches_due(), now_ms() + after_ms, batch_id)

    def look_on(self, batch_id: str, after_ms: int) -> None:
        """Have the scheduler look at a batch that may have been complete before, if it does not anyway."""
        self._calls.command("ZADD", self._keys.batches_due(), "NX", now_ms() + after_ms, batch_id)

    def look_no_more(self, batch_id: str) -> None:
        """Note that a batch has ended, and that its callbacks are sent."""
        self._calls.command("ZREM", self._keys.batches_due(), batch_id)

    def forget(self, batch_id: str) -> None:
        """Delete a batch, or take one that has expired off the list."""
        self._calls.command("UNLINK", *self._five(batch_id))
        self._calls.command("ZREM", self._keys.batches(), batch_id)
        self.look_no_more(batch_id)

    def note_end(self, queue: str, message_id: str, outcome: Outcome, *, token: str = "") -> None:
        """Note how a member ended that no script ends; with a token, how it ends once it is acknowledged under that."""
        end = f"?{outcome} {token}" if token else outcome
        self._calls.command("HSET", self._keys.queue(queue).ends, message_id, end)

    def ends(self, queue: str) -> Iterator[dict[bytes, bytes]]:
        """Yield the ends that a queue has noted, by the member's id, 500 at once; they may be dropped meanwhile."""
        cursor: bytes | int = 0
        while cursor != b"0":
            cursor, found = self._calls.command("HSCAN", self._keys.queue(queue).ends, cursor, "COUNT", AT_ONCE)
            noted = [pair for pair in _pairs(found) if not pair[1].startswith(b"?")]
            for start in range(0, len(noted), AT_ONCE):
                yield dict(noted[start : start + AT_ONCE])

    def noted(self, queues: Iterable[str]) -> tuple[list[str], BrokerError | None]:
        """Return those queues that have noted ends, and the error of one that did not answer, if there is one."""
        names = list(queues)
        commands = [("HLEN", self._keys.queue(name).ends) for name in names]
        counts = self._calls.pipeline(commands, raise_errors=False)
        failed = next((count for count in counts if isinstance(count, BrokerError)), None)
        return [name for name, count in zip(names, counts, strict=True) if isinstance(count, int) and count], failed

    def drop_ends(self, queue: str, ends: Mapping[bytes, bytes]) -> None:
        """Drop ends that their batches have counted (at most 500)."""
        self._calls.call(DROP, [self._keys.queue(queue).ends], [*chain.from_iterable(ends.items())])

    def _five(self, batch_id: str) -> list[str]:
        return [self._keys.batch(batch_id), *self._keys.batch_members(batch_id)]

    def _record(self, id_: str, fields: Sequence[Any], *counts: int) -> BatchRecord | None:
        key = self._keys.batch(id_)
        known = {str(name, "ascii", "replace"): value for name, value in _pairs(fields)}
        facts = read(FACTS, known["facts"], key) if "facts" in known else None
        if facts is None:
            return None
        at = {name: number(known[name], key) for name in known if name not in ("facts", *CALLBACKS)}
        state = "open"
        if at.get("closed") and not counts[0]:
            state = "succeeded" if at.get("succeeded") else "complete"
        callbacks = {name: known[name] for name in CALLBACKS if name in known}
        return record_of(id_, facts, state, counts, at, callbacks)


def record_of(
    id_: str,
    facts: BatchFacts,
    state: str,
    counts: Sequence[int],
    at: Mapping[str, int],
    callbacks: Mapping[Any, bytes],
) -> BatchRecord:
    """Return a batch with so many members of each of :data:`STATES`, and the times of its steps by their names."""
    is_open, done, failed, cancelled = counts
    return BatchRecord(
        id=id_,
        name=facts.name,
        tags=facts.tags,
        parent=facts.parent,
        state=state,
        open=is_open,
        done=done,
        failed=failed,
        cancelled=cancelled,
        created_at=at.get("created", 0),
        changed_at=max(at.get("changed", 0), at.get("created", 0)),
        closed_at=at.get("closed", 0),
        cancelled_at=at.get("cancelled", 0),
        completed_at=at.get("completed", 0),
        abandoned="abandoned" in at,
        sent={name: at[f"sent:{name}"] for name in CALLBACKS if f"sent:{name}" in at},
        callbacks=callbacks,
    )


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(*[iter(flat)] * 2, strict=True))
