"""Claims of unique keys and of dead letters, on the Redis server beside RabbitMQ, which itself takes any message."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.redis.acl import PURGES, RECORDED, Role
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import Moved
from switchyard.broker.stores.job_records import ENDED, LIVE_TTL_MS, JobRecords


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
