"""Keys on the Redis server beside RabbitMQ: claims of unique keys and of dead letters, and messages of a long delay.

RabbitMQ itself takes any message, and a worker holds none for longer than it may: such a one is moved when it is due.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue import codec
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.redis.acl import PURGES, RECORDED, Role
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import Moved
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.broker.stores.job_records import ENDED, LIVE_TTL_MS, JobRecords
from switchyard.broker.stores.limit_counts import Lock
from switchyard.broker.topology import lane_of_name


@dataclass(frozen=True, slots=True)
class RabbitKeys:
    """Names of keys. Each docstring begins with the type of the key."""

    prefix: str

    def unique_claim(self, queue: str, key: str) -> str:
        """String: unique key of a message -> its id, and when it was sent (ms). Expires after nine days."""
        return f"{self.prefix}:{{{queue}}}:unique:{key}"

    def requeued(self, queue: str, message_id: str, died_at: int) -> str:
        """String: dead letter -> nonce of its requeue, and when it was sent (ms). Expires after ten minutes."""
        return f"{self.prefix}:{{{queue}}}:requeued:{message_id}:{died_at}"

    def later(self, lane: str) -> str:
        """Sorted set: messages of a lane with a long delay -> due time, ms since the epoch."""
        return f"{self.prefix}:{{{lane}}}:later"

    def later_bodies(self, lane: str) -> str:
        """Hash: each of those messages -> its id, a line break and its body."""
        return f"{self.prefix}:{{{lane}}}:later.bodies"

    def redelivered(self, job_id: str) -> str:
        """Hash: notes of a message that is delivered again. Expires after 72 hours.

        ``crashes`` its number, ``cause`` of the last one until it is read, and ``ended:<number>`` of each publication
        that was worked off although its acknowledgement may not have arrived.
        """
        return f"{self.prefix}:redelivered:{{{job_id}}}"

    def returned(self) -> str:
        """Sorted set: publications that went back to the server -> when, ms since the epoch.

        A member is the number of the publication. Whoever receives it next removes it: how its last delivery ended is
        known, and makes no suspect. Expires 72 hours after the last entry, with which older ones are removed.
        """
        return f"{self.prefix}:rabbit:returned"


CLAIM_FILE: Final = str(Path(__file__).with_name("unique_claim"))
CLAIM: Final = script(CLAIM_FILE, folder="")
# A job without a record counts as unfinished for so long after it was sent: its record may be on its way.
UNRECORDED_MS: Final = 10_000
# Another sender's publish takes milliseconds; one that takes longer is refused, as one to a server that is away.
PATIENCE_S: Final = 2.0
# A requeue of one dead letter ends within this time: its publish takes up to 9 s, each call beside it up to 2 s.
REQUEUE_MS: Final = 30_000
# A requeue that is repeated within this time gets the same answer, as on Redis.
REQUEUED_MS: Final = 600_000
# Options of a message that is not sent for the first time.
MOVED: Final = frozenset({"attempts", "generation", "deferred_by", "parked_ms"})

logger = logging.getLogger("switchyard.broker")


class UniqueClaims:
    """Claims of unique keys by messages. A claim ends with its job, by the job's record.

    A job that keeps no record holds its key for 10 s. A claim whose message is not confirmed to be on RabbitMQ stands
    for no message: its time is negative.
    """

    def __init__(self, calls: RedisCalls, keys: Keys, records: JobRecords) -> None:
        self._calls, self._keys, self._records = calls, RabbitKeys(keys.prefix), records

    @contextmanager
    def sending(self, message: Message[Any], lane: str) -> Iterator[str]:
        """Claim the unique key of a new message while a block sends it; yields the id of the message that holds it.

        It is the message itself where nothing else holds the key, where it has none, and where it was sent before. The
        key is free again where the block fails, although the message may be on the server then.

        Raises:
            BrokerUnavailable: another sender has claimed the key, and not confirmed its message within 2 s.
        """
        unique_key = message.options.get("unique_key")
        if unique_key is None or message.options.keys() & MOVED:
            yield message.message_id
            return
        key = self._keys.unique_claim(lane, str(unique_key))
        holder, claim = self._claim(key, message.message_id)
        if holder != message.message_id or not _is_unconfirmed(claim):
            yield holder
            return
        try:
            yield holder
        except BaseException:
            _replace(self._calls, key, claim, by=claim, ttl_ms=1)
            raise
        _replace(self._calls, key, claim, by=f"{holder} {now_ms()}", ttl_ms=LIVE_TTL_MS)

    def _claim(self, key: str, message_id: str) -> tuple[str, str]:
        """Claim a key; return the message that holds it, the given one or an unfinished one, and its claim."""
        own, judged, give_up_s = f"{message_id} -{now_ms()}", "", time.monotonic() + PATIENCE_S
        # Only the claim that was judged is replaced: another sender may have replaced it meanwhile.
        while held := str(self._calls.call(CLAIM, [key], [own, LIVE_TTL_MS, judged]), "utf-8"):
            holder = held.rpartition(" ")[0]
            judged = ""
            if holder == message_id or (state := self._state(held)) == "unfinished":
                return holder, held
            if state == "ended":
                judged = held
            elif time.monotonic() < give_up_s:
                time.sleep(0.02)
            else:
                fact = f"message {holder} has that key and may not be sent"
                raise BrokerUnavailable("a unique send", fact, outcome="refused", remedy="try again in 10 s")
        return message_id, own

    def _state(self, claim: str) -> str:
        """Return ``unfinished``, ``ended`` or ``unconfirmed`` for a claim of another message."""
        message_id, _, stamp = claim.rpartition(" ")
        [state] = self._records.states([message_id])
        if state is not None:
            return "ended" if state in ENDED else "unfinished"
        if now_ms() - abs(int(stamp)) >= UNRECORDED_MS:
            return "ended"
        return "unconfirmed" if _is_unconfirmed(claim) else "unfinished"


class Requeues:
    """Claims of dead letters by requeues: one of several sends a letter. One that died again is another letter."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls, self._keys = calls, RabbitKeys(keys.prefix)

    def once(
        self, queue: str, message_id: str, died_at: int, *, nonce: str,
        requeue: Callable[[Mapping[str, int]], Mapping[str, Moved]],
    ) -> Moved:  # fmt: skip
        """Requeue a letter unless it was requeued; return what became of it.

        A repeated call with the nonce of the one that requeued it answers as that one did, any other ``gone``. Killed
        between the send and its record, a requeue sends the letter a second time when it is repeated.

        Raises:
            BrokerUnavailable: another requeue claimed the letter and did not end within 2 s; or ``requeue`` raised it.
        """
        key, own = self._keys.requeued(queue, message_id, died_at), f"{nonce} -{now_ms()}"
        give_up_s = time.monotonic() + PATIENCE_S
        while (held := str(self._calls.call(CLAIM, [key], [own, REQUEUE_MS, ""]), "utf-8")) not in ("", own):
            if not _is_unconfirmed(held):
                return "moved" if held.rpartition(" ")[0] == nonce else "gone"
            if time.monotonic() >= give_up_s:
                fact, remedy = f"another requeue of {message_id} has not ended", "look again in 30 s"
                raise BrokerUnavailable("a requeue", fact, outcome="refused", remedy=remedy)
            time.sleep(0.02)
        answer: Moved | None = None
        try:
            answer = requeue({message_id: died_at})[message_id]
            return answer
        finally:
            sent = answer == "moved"
            by, ttl_ms = (f"{nonce} {now_ms()}", REQUEUED_MS) if sent else (own, 1)
            _replace(self._calls, key, own, by=by, ttl_ms=ttl_ms)


def _replace(calls: RedisCalls, key: str, claim: str, *, by: str, ttl_ms: int) -> None:
    try:
        calls.call(CLAIM, [key], [by, ttl_ms, claim])
    except BrokerError as error:
        logger.warning("claim %s stays as it is for up to 30 s: %s", key, error)


def _is_unconfirmed(claim: str) -> bool:
    return claim.rpartition(" ")[2].startswith("-")


def rights(roles: Mapping[str, Role]) -> dict[str, Role]:
    """Return the roles at the server beside RabbitMQ: who sends a message writes its record and claims its key."""
    producer, scheduler, worker, room = (roles[name] for name in ("producer", "scheduler", "worker", "room"))
    sends, kept = {"job_write", CLAIM_FILE}, tuple(each for each in scheduler.only if ":aside:" not in each[0])
    return {
        "producer": replace(producer, scripts=producer.scripts | sends, only=(*producer.only, RECORDED)),
        "scheduler": replace(scheduler, scripts=scheduler.scripts - PURGES | sends, only=kept),
        "worker": replace(worker, scripts=worker.scripts | {CLAIM_FILE}),
        "room": replace(room, scripts=room.scripts | {CLAIM_FILE}),
    }


POLL_S: Final = 0.5
LEASE_MS: Final = 10_000
# One publish takes up to 9 s.
RENEW_S: Final = 1.0
# Behind others that are due meanwhile, so that refused messages fill no pass.
REFUSED_AGAIN_MS: Final = 60_000
# Refused messages that are logged once; of more, some are logged again.
NOTED: Final = 10_000
# A process that is not the leader, or that a server refused, asks again after this.
AGAIN_S: Final = 2.0
AT_ONCE: Final = 100


class Later(NamedTuple):
    """A stored message: its place, its id and its body."""

    lane: str
    member: bytes
    id: str
    body: bytes


class LongDelays:
    """Store, list and remove messages that are due later. The server's clock decides."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = RabbitKeys(keys.prefix)

    def add(self, lane: str, message_id: str, body: bytes, *, delay_ms: int) -> None:
        """Store a message of a lane, due in ``delay_ms``. After ``BrokerUnavailable`` it may be there."""
        member, due_ms = uuid.uuid4().hex, self._now_ms() + delay_ms
        stored = message_id.encode() + b"\n" + body
        # The body first: what is due has one.
        self._calls.command("HSET", self._keys.later_bodies(lane), member, stored)
        self._calls.command("ZADD", self._keys.later(lane), due_ms, member)

    def due(self, lanes: Sequence[str]) -> list[Later]:
        """Return messages that are due, at most 100 of each lane, the oldest first."""
        now_ms = self._now_ms()
        found = self._calls.pipeline(
            [("ZRANGEBYSCORE", self._keys.later(lane), "-inf", now_ms, "LIMIT", 0, AT_ONCE) for lane in lanes]
        )
        return [later for lane, members in zip(lanes, found, strict=True) for later in self._bodies(lane, members)]

    def postpone(self, later: Later, *, delay_ms: int) -> None:
        self._calls.command("ZADD", self._keys.later(later.lane), "XX", self._now_ms() + delay_ms, later.member)

    def remove(self, later: Later) -> None:
        """Remove a message that is in its queue now."""
        self._calls.command("ZREM", self._keys.later(later.lane), later.member)
        self._calls.command("HDEL", self._keys.later_bodies(later.lane), later.member)

    def count(self, lanes: Iterable[str]) -> list[int]:
        return [int(count) for count in self._calls.pipeline([("ZCARD", self._keys.later(lane)) for lane in lanes])]

    def clear(self, lane: str) -> None:
        self._calls.pipeline([("DEL", self._keys.later(lane)), ("DEL", self._keys.later_bodies(lane))])

    def _bodies(self, lane: str, members: Sequence[bytes]) -> list[Later]:
        if not members:
            return []
        found: list[Later] = []
        bodies = self._calls.command("HMGET", self._keys.later_bodies(lane), *members)
        for member, stored in zip(members, bodies, strict=True):
            if stored is None:  # another mover removed it meanwhile
                self._calls.command("ZREM", self._keys.later(lane), member)
                continue
            id_, _, body = stored.partition(b"\n")
            found.append(Later(lane, member, str(id_, "utf-8"), body))
        return found

    def _now_ms(self) -> int:
        seconds, microseconds = self._calls.command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000


class Mover:
    """A thread in each worker process; the holder of a lock moves what is due, every 0.5 s.

    A message is enqueued first and then removed: a crash between enqueues it twice, and loses none.
    """

    def __init__(
        self,
        calls: RedisCalls,
        keys: Keys,
        *,
        lanes: Callable[[], Sequence[str]],
        enqueue: Callable[[Message[Any]], object],
    ) -> None:
        self.delays = LongDelays(calls, keys)
        self._unreadable = Quarantine(calls, keys)
        self._refused: set[str] = set()  # ids of those that the log has
        self._away: set[str] = set()  # lanes whose queue did not answer last time
        self._lock = Lock(calls, keys, "long-delays", lease_ms=LEASE_MS)
        self._lanes, self._enqueue = lanes, enqueue
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switchyard-long-delays", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and let another process lead at once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        thread.join(AGAIN_S)

    def move(self) -> int:
        """Move what is due, and return how many messages that were.

        What is no message goes to the quarantine. A message that is refused stays, and is tried again a minute later.
        A queue that does not answer, for it is full or has no leader, keeps its own messages back and no others; it
        comes last in the next pass, because each answer that is missing takes seconds.

        Raises:
            BrokerError: Redis did not answer, or RabbitMQ for one queue; what is left is moved the next time.
        """
        renew_s, moved = time.monotonic() + RENEW_S, 0
        away: dict[str, BrokerUnavailable] = {}
        for later in sorted(self.delays.due(self._lanes()), key=lambda later: later.lane in self._away):
            if later.lane in away:
                continue
            if time.monotonic() >= renew_s:  # a busy server confirms after seconds
                if not self._lock.acquire():
                    break
                renew_s = time.monotonic() + RENEW_S
            try:
                moved += self._move(later)
            except BrokerUnavailable as error:
                away[later.lane] = error
        self._away = set(away)
        for first in away.values():
            raise first
        return moved

    def _move(self, later: Later) -> bool:
        try:
            message = codec.decode(later.body, message_id=later.id, lane=later.lane)
        except codec.UnreadableMessage as error:
            self._unreadable.set_aside(lane_of_name(later.lane)[0], later.lane, later.id, later.body, error)
            self.delays.remove(later)
            return False
        if not self.send(message, put_off=partial(self.delays.postpone, later)):
            return False
        self.delays.remove(later)
        return True

    def send(self, message: Message[Any], *, put_off: Callable[..., object]) -> bool:
        """Enqueue a message that is due; one that is refused is put off by ``delay_ms``, and logged once.

        Raises:
            BrokerUnavailable: a server did not answer; the message is where it was.
        """
        try:
            with limits_lifted():
                self._enqueue(message)
        except BrokerUnavailable:  # the others of its queue would wait for the same answer
            raise
        except Exception as error:  # of this message, by middleware or for its queue: others are moved
            put_off(delay_ms=REFUSED_AGAIN_MS)
            if message.message_id not in self._refused:
                if len(self._refused) >= NOTED:  # some were cancelled meanwhile
                    self._refused.clear()
                self._refused.add(message.message_id)
                text = (
                    "message %s of %s, actor %s, is refused after its delay: %s: %s; it is kept, and tried every %d s"
                )
                fact = type(error).__name__, error, REFUSED_AGAIN_MS // 1000
                whose = message.message_id, message.queue_name, message.actor_name
                logger.error(text, *whose, *fact, exc_info=True)
            return False
        self._refused.discard(message.message_id)
        return True

    def _run(self) -> None:
        away = False
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            try:
                leads = self._lock.acquire()
                goes_on = leads and self.move() >= AT_ONCE
                pause_s, away = 0.0 if goes_on else POLL_S if leads else AGAIN_S, False
            except BrokerError as error:
                if not away:
                    logger.warning("messages with long delays are moved later: %s", error)
                pause_s, away = AGAIN_S, True
            except Exception:  # the thread must go on: no other process takes over while this one holds the lock
                logger.exception("messages with long delays cannot be moved now")
                pause_s = AGAIN_S
        try:
            self._lock.release()
        except BrokerError as error:
            logger.info("another process moves messages with long delays in %d s: %s", LEASE_MS // 1000, error)
