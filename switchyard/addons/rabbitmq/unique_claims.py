"""Unique keys of messages on RabbitMQ, which itself takes any message: kept on the Redis server beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dramatiq.message import Message

from switchyard.addons.rabbitmq.keys import RabbitKeys
from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.redis.acl import PURGES, RECORDED, Role
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.job_records import ENDED, LIVE_TTL_MS, JobRecords

CLAIM_FILE: Final = str(Path(__file__).with_name("unique_claim"))
CLAIM: Final = script(CLAIM_FILE, folder="")
# A job without a record counts as unfinished for so long after it was sent: its record may be on its way.
UNRECORDED_MS: Final = 10_000
# Options of a message that is not sent for the first time.
MOVED: Final = frozenset({"attempts", "generation", "deferred_by", "parked_ms"})


class UniqueClaims:
    """Claims of unique keys by messages. A claim ends with its job, by the job's record.

    A job that keeps no record holds its key for 10 s.
    """

    def __init__(self, calls: RedisCalls, keys: Keys, records: JobRecords) -> None:
        self._calls, self._keys, self._records = calls, RabbitKeys(keys.prefix), records

    def holder_of(self, message: Message[Any], lane: str) -> str:
        """Claim the unique key of a new message, and return the id of the message that holds it.

        It is the message itself where nothing else holds the key, where it has none, and where it was sent before.
        """
        key = message.options.get("unique_key")
        if key is None or message.options.keys() & MOVED:
            return message.message_id
        return self.claim(lane, str(key), message.message_id)

    def claim(self, queue: str, unique_key: str, message_id: str) -> str:
        """Claim a key, and return the id of the message that holds it: the given one, or that of an unfinished job."""
        key, value, judged = self._keys.unique_claim(queue, unique_key), f"{message_id} {now_ms()}", b""
        # Only the claim that was judged is replaced: another sender may have replaced it meanwhile.
        while held := self._calls.call(CLAIM, [key], [value, LIVE_TTL_MS, judged]):
            holder, _, sent_ms = str(held, "utf-8").rpartition(" ")
            if holder == message_id or self._is_unfinished(holder, int(sent_ms)):
                return holder
            judged = held
        return message_id

    def _is_unfinished(self, message_id: str, sent_ms: int) -> bool:
        [state] = self._records.states([message_id])
        return state not in ENDED if state is not None else now_ms() - sent_ms < UNRECORDED_MS


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
