"""Dead lists: messages that were given up, kept until a person decides, and moved; the quarantine of other bytes."""

import json
import logging
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Literal, TypedDict

import msgspec
from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.queue import codec
from switchyard.broker.queue.codec import as_sent, usable_id
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import UNREADABLE, encode, note, read
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import DeadLetter, Moved, Page, Unreadable

# Options that describe a message in its present place; a moved message and a dead letter drop them.
LOCAL_OPTIONS = frozenset({"redis_message_id", "eta", "due_at", "delay", "deferred_by", "parked_ms", "retries"})


class _Payload(TypedDict):
    queue_name: str
    actor_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    message_id: str
    message_timestamp: int


# Prepares both here: two threads that did so at once, at their first letters, would crash the process.
msgspec.json.Decoder(tuple[DeadLetter, _Payload])


def encode_letter(dead_letter: DeadLetter) -> str:
    return json.dumps(asdict(dead_letter))


def decode_letter(key: str, data: bytes) -> DeadLetter | None:
    """Return the dead letter in JSON; ``None``, and noted, for one of another release, or written by hand."""
    try:
        fields = json.loads(data)
        dead_letter = DeadLetter(**fields)
        msgspec.convert(fields, DeadLetter)
        msgspec.convert(dead_letter.message, _Payload)
        return dead_letter
    except (TypeError, *UNREADABLE) as error:
        note(key, f"a letter of {len(data)} bytes: {error}")
        return None


def payload_of(message: Any) -> dict[str, Any]:
    """Return the fields of a message that move with it, and that its dead letter keeps."""
    sent = as_sent(message)
    options = {name: value for name, value in message.options.items() if name not in LOCAL_OPTIONS}
    return {
        "queue_name": message.queue_name,
        "actor_name": message.actor_name,
        "args": list(sent.args),
        "kwargs": sent.kwargs,
        "options": options,
        "message_id": message.message_id,
        "message_timestamp": int(message.message_timestamp),
    }


def rejected(message: Message[Any] | MessageProxy, queue: str, error: BaseException) -> DeadLetter:
    """Return a dead letter for a message that was refused for an error, and that no middleware described."""
    return DeadLetter(
        id=message.message_id,
        queue=queue,
        actor=message.actor_name,
        message=payload_of(message),
        reason="permanent",
        exception=type(error).__name__,
        error=str(error),
        traceback="".join(traceback.format_exception(error)),
        attempts=int(message.options.get("attempts", 0)),
        enqueued_at=int(message.options.get("enqueued_at", message.message_timestamp)),
        died_at=now_ms(),
        duration_ms=0,
        fingerprint=f"{message.actor_name} {type(error).__name__}",
    )


MOST: Final = 50
MOST_BYTES: Final = 500_000
ANSWERS: Final[dict[int, Moved]] = {1: "moved", 0: "gone", -2: "full"}


class StoredLetter(msgspec.Struct, frozen=True):
    """A dead letter with its bytes in the broker; ``None`` where there is none that can be read."""

    id: str
    stored: bytes | None
    letter: DeadLetter | None


def read_letters(family: QueueOperations, ids: Sequence[str]) -> Iterator[list[StoredLetter]]:
    """Read dead letters in batches of at most 50 and about 500 kB: a move of them takes the server 1 to 2 ms."""
    key = family.keys.dead_letters
    sizes = family.calls.pipeline([("HSTRLEN", key, id_) for id_ in ids])
    batches: list[list[str]] = []
    held = 0
    for id_, size in zip(ids, sizes, strict=True):
        if not batches or held + size > MOST_BYTES or len(batches[-1]) == MOST:
            batches.append([])
            held = 0
        batches[-1].append(id_)
        held += size
    for batch in batches:
        found = family.calls.command("HMGET", key, *batch)
        yield [
            StoredLetter(id_, stored, None if stored is None else decode_letter(key, stored))
            for id_, stored in zip(batch, found, strict=True)
        ]


def requeue(
    family: QueueOperations,
    letters: Sequence[StoredLetter],
    bodies: dict[str, tuple[bytes, int]],
    *,
    nonce: str,
    limit: int = 0,
) -> dict[str, Moved]:
    """Move dead letters, one batch of ``read``, back to the live lane with new bodies and levels (by id).

    A repeated call with the nonce answers the same. Those for which a lane of ``limit`` messages, waiting or scheduled
    (0: any number), has no room are ``full``.
    """
    k = family.keys
    keys = [k.dead_letters, k.dead, k.bodies, *k.waiting("live"), k.wakeup("live"), k.notes, *k.done, k.due("live")]
    return _move(family, "requeue", keys, nonce, [limit], letters, lambda one: bodies.get(one.id, (b"", 2)))


def discard(family: QueueOperations, letters: Sequence[StoredLetter], *, nonce: str) -> dict[str, Moved]:
    """Drop dead letters for good; a repeated call with the nonce answers the same."""
    k = family.keys
    keys = [k.dead_letters, k.dead, k.bodies, *k.done, k.notes, k.unique]
    return _move(family, "discard", keys, nonce, [], letters, lambda one: ())


# Waiting messages that one of them is looked for among, from the last that came.
TAKEN_BACK_FROM: Final = 20_000


def take_back(family: QueueOperations, letters: Sequence[DeadLetter], *, nonce: str) -> set[str]:
    """Put messages that a requeue moved, and no worker has fetched since, back into the dead list; return their ids.

    Those of an earlier call are among them.

    Args:
        letters: As they are to be there, without their messages: these come from the queue.
        nonce: Of the requeue.
    """
    k, there = family.keys, set()
    keys = [k.bodies, *k.waiting("live"), k.due("live"), k.notes, k.unique, k.dead, k.dead_letters]
    for start in range(0, len(letters), MOST):
        batch = letters[start : start + MOST]
        bodies = family.calls.command("HMGET", k.bodies, *(letter.id for letter in batch))
        args: list[Word] = [f"requeue {nonce}", TAKEN_BACK_FROM]
        for letter, body in zip(batch, bodies, strict=True):
            args += (letter.id, body or b"", _with_message(letter, body))
        answers = family.calls.call(script("take_back"), keys, args)
        there |= {letter.id for letter, answer in zip(batch, answers, strict=True) if answer}
        left = {letter.id: letter.died_at for letter in batch if letter.id not in there}
        for known in read_letters(family, list(left)) if left else ():
            there |= {one.id for one in known if one.letter is not None and one.letter.died_at == left[one.id]}
    return there


def _with_message(letter: DeadLetter, body: bytes | None) -> str:
    """Return a letter with a message as its queue has it; "" for one that is gone or that its consumer quarantines."""
    try:
        message = codec.decode(body or b"", message_id=letter.id, lane=letter.queue)
    except codec.UnreadableMessage:
        return ""
    return encode_letter(replace(letter, message=payload_of(message)))


def _move(
    family: QueueOperations,
    operation: Literal["requeue", "discard"],
    keys: list[str],
    nonce: str,
    options: list[Word],
    letters: Sequence[StoredLetter],
    rest: Callable[[StoredLetter], Iterable[Word]],
) -> dict[str, Moved]:
    moved: dict[str, Moved] = {}
    left, place = list(letters), 0
    while left:
        args: list[Word] = [nonce, place, *options]
        for one in left:
            args += (one.id, one.stored or b"", *rest(one))
        place, *answers = family.calls.call(script(operation), keys, args)
        moved |= {one.id: ANSWERS.get(answer, "moved") for one, answer in zip(left, answers, strict=True)}
        left = [one for one, answer in zip(left, answers, strict=True) if answer == -1]
    return moved


logger = logging.getLogger("switchyard.broker")

ADD, REMOVE = (script(name, folder="") for name in ("dead_add", "dead_remove"))


class DeadLists:
    """Add, read and remove dead letters of any queue."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    def add(self, dead_letter: DeadLetter) -> bool:
        """Add a dead letter; where its id is there already, replace its content and return ``False``."""
        return bool(self._calls.call(ADD, self._both(dead_letter.queue), [dead_letter.id, encode_letter(dead_letter)]))

    def remove(self, queue: str, message_id: str, *, as_read: DeadLetter | None = None) -> bool:
        """Remove a dead letter; ``False`` when it was not there.

        With ``as_read`` only if its content is still this one: a requeued message may have died again.
        """
        expected = encode_letter(as_read) if as_read else ""
        return bool(self._calls.call(REMOVE, self._both(queue), [message_id, expected], repeatable=False))

    def get(self, queue: str, message_id: str) -> DeadLetter | None:
        """Return one dead letter, or ``None`` when there is none that can be read."""
        found = self._calls.command("HGET", self._keys.queue(queue).dead_letters, message_id)
        return None if found is None else decode_letter(self._keys.queue(queue).dead_letters, found)

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[DeadLetter]:
        """Return the dead letters that can be read, newest first; ``cursor`` counts from the newest."""
        key = self._keys.queue(queue).dead_letters
        ids = self._calls.command("LRANGE", self._keys.queue(queue).dead, -cursor - limit, -cursor - 1)
        if not ids:
            return Page([])
        found = self._calls.command("HMGET", key, *ids[::-1])
        letters = [decode_letter(key, letter) for letter in found if letter is not None]
        return Page([letter for letter in letters if letter is not None], cursor + limit if len(ids) == limit else None)

    def count(self, queue: str) -> int:
        return int(self._calls.command("LLEN", self._keys.queue(queue).dead))

    def _both(self, queue: str) -> list[str]:
        keys = self._keys.queue(queue)
        return [keys.dead, keys.dead_letters]


KEPT_BYTES = 4096
ENTRY: Final = msgspec.json.Decoder(Unreadable)  # bytes are base64 in it, as msgspec writes them


class Quarantine:
    """Describe, list and count unreadable messages. On Redis, moving one in is the broker's own atomic operation."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    @staticmethod
    def entry(queue: str, raw: bytes, error: str, *, message_id: str | None = None) -> str:
        """Return the JSON kept for an unreadable message: the first 4 KiB of it, its size and what was wrong."""
        kept = Unreadable(message_id or uuid.uuid4().hex, queue, raw[:KEPT_BYTES], len(raw), error, now_ms())
        return str(encode(kept), "utf-8")

    def set_aside(self, queue: str, lane: str, given_id: str, body: bytes, error: Exception) -> None:
        """Add a message from another server, maybe twice; one without a usable id gets another."""
        id_, keys = usable_id(given_id.encode()) or f"unreadable-{time.time_ns()}", self._keys.queue(queue)
        entry = self.entry(lane, body, str(error), message_id=id_)
        self._calls.pipeline([("LPUSH", keys.quarantine, entry), ("HSET", keys.quarantined_bodies, id_, body)])
        logger.error("unreadable message of %d bytes in %s set aside: %s", len(body), lane, error)

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[Unreadable]:
        key = self._keys.queue(queue).quarantine
        [found] = self._calls.look([("LRANGE", key, cursor, cursor + limit - 1)])
        items = [entry for item in found if (entry := read(ENTRY, item, key)) is not None]
        return Page(items, cursor + limit if len(found) == limit else None)

    def find(self, queue: str, entry_id: str) -> tuple[bytes, Unreadable, bytes | None] | None:
        """Return an entry as it is stored, parsed, and with the whole message, which old entries lack."""
        keys = self._keys.queue(queue)
        for as_read in self._calls.command("LRANGE", keys.quarantine, 0, -1):
            entry = read(ENTRY, as_read, keys.quarantine)
            if entry is not None and entry.id == entry_id:
                return as_read, entry, self._calls.command("HGET", keys.quarantined_bodies, entry_id)
        return None

    def count(self, queue: str) -> int:
        return int(self._calls.command("LLEN", self._keys.queue(queue).quarantine))
