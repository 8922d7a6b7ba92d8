"""Moves on Switchyard's own broker: one step on the server each, so that a message is never in two places or none."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dramatiq.message import Message
from dramatiq.middleware import MiddlewareError

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import ActRefused, QueueFull, not_quarantined
from switchyard.broker.held_message import HeldMessage, moved_copy, requeued_copy
from switchyard.broker.interface import Arguments, Held, Keep, Transport
from switchyard.broker.queue import administration, codec
from switchyard.broker.queue.limits import Circuit, note_circuit
from switchyard.broker.queue.operations import (
    ACTOR_PAUSE,
    NO_RECORD,
    CancelRecord,
    Move,
    QueueOperations,
    lane_of,
)
from switchyard.broker.queue.unroutable import UnroutableLane
from switchyard.broker.redis.own_keys import read
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import ActorPause, DeadLetter, Moved, QueueStats
from switchyard.broker.stores import dead_lists
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine, encode_letter
from switchyard.broker.topology import Yard

LEAST_PARKED_MS: Final = 30_000
BODY_CHANGED: Final = -2


class RedisTransport(Transport):
    """Transport of :class:`switchyard.broker.redis_broker.RedisBroker`.

    A message whose lease was lost belongs to another worker: it is not moved, and the loss is logged.
    """

    finds_waiting = True

    def __init__(self, broker: RedisBroker, yard: Yard, dead_lists: DeadLists, quarantine: Quarantine) -> None:
        self._broker = broker
        self._yard = yard
        self._dead = dead_lists
        self._quarantine = quarantine

    def divert(self, held: Held, *, lane: str, delay_ms: int, options: dict[str, Any]) -> None:
        self._move(held, "divert", lane, delay_ms, options)

    def defer(self, held: Held, *, delay_ms: int, options: dict[str, Any]) -> None:
        self._move(held, "defer", held.queue_name, delay_ms, options)

    def park(self, held: Held, *, call: str, parked_ms: int, options: dict[str, Any]) -> int:
        """Schedule a held message anew where it came from, then put it on the list for workers that know it.

        A message of the lane for isolated runs waits in the live lane instead: any pool's child may fetch it from the
        former; the worker that adopts it runs it. After a crash between the two steps the message is
        not on the list and waits until it is due.
        """
        lane = self._lane(held)
        # As long as it has waited already, so that a million unroutable messages are not fetched all the time.
        delay_ms = int(max(parked_ms, LEAST_PARKED_MS) * random.uniform(0.8, 1.2))  # noqa: S311  no secret
        self._move(held, "defer", lane.name, delay_ms, {**options, "parked_ms": parked_ms + delay_ms})
        lane.add(held.message_id, call)
        return delay_ms

    def unpark(self, held: Held, *, call: str) -> None:
        self._lane(held).remove(held.message_id, call)

    def known_lately(self, held: Held, *, call: str, within_ms: int) -> bool:
        return self._lane(held).known_lately(call, within_ms)

    def isolate(self, held: Held) -> bool:
        self._broker.isolate(_held(held))
        return True

    def return_paused(self, held: Held) -> bool:
        """Return it to the head of its lane: the next fetch compares its arguments as well, and puts it off or not."""
        if not (paused := self._broker.cancellations.paused):
            return False
        message = _held(held)
        token = paused.get(message.family.keys.queue, {}).get(message.actor_name)
        if token is None or int(message.lease.token) > token:
            return False
        message.family.release(message.lease.owner, [message.lease])
        message.moved = True
        return True

    def circuit_stops(self, held: Held, circuit: Circuit) -> str:
        """Return it to the head of its lane: the next fetch puts it off."""
        message, key = _held(held), _held(held).family.keys.actor_pauses
        text = message.family.calls.command("HGET", key, circuit.field)
        found = None if text is None else read(ACTOR_PAUSE, text, key)
        if found is None or not found.times:
            return ""
        if found.probe == message.message_id:
            return "probe"
        message.family.release(message.lease.owner, [message.lease])
        message.moved = True
        return "stopped"

    def note_circuit(self, held: Held, circuit: Circuit, outcome: str, *, until_ms: int = 0, reason: str = "") -> str:
        family = _held(held).family
        return note_circuit(family, circuit, held.message_id, outcome, until_ms=until_ms, reason=reason)

    def pause_for(self, held: Held, pause: ActorPause) -> bool:
        try:
            administration.pause_actor(_held(held).family, pause)
        except ValueError:  # there are too many
            return False
        return True

    def dead_letter(self, held: Held, dead_letter: DeadLetter) -> None:
        self._broker.dead_letter(_held(held), dead_letter)

    def requeue(
        self, queue: str, letters: Mapping[str, int], *, nonce: str, arguments: Arguments | None = None
    ) -> dict[str, Moved]:
        family = self._family(queue)
        answers: dict[str, Moved] = {}
        for batch in dead_lists.read_letters(family, list(letters)):
            if "full" in answers.values():
                answers |= dict.fromkeys((one.id for one in batch), "full")
                continue
            messages = self._ready(batch, letters, family.keys.queue, arguments, answers)
            bodies = {id_: (codec.encode(one, grown=True), self._broker.level(one)) for id_, one in messages.items()}
            going = [one for one in batch if one.id not in answers]
            moved = dead_lists.requeue(family, going, bodies, nonce=nonce, limit=self._limit(family))
            for id_, message in messages.items():
                if moved[id_] == "moved":
                    self._broker.emit_after("enqueue", message, None)
            answers |= moved
        return answers

    def discard(self, queue: str, letters: Mapping[str, int], *, nonce: str, keep: Keep) -> dict[str, Moved]:
        family = self._family(queue)
        answers: dict[str, Moved] = {}
        for batch in dead_lists.read_letters(family, list(letters)):
            newer = {one.id for one in batch if one.letter is not None and one.letter.died_at != letters[one.id]}
            answers |= dict.fromkeys(newer, "newer")
            keep([one.letter for one in batch if one.letter is not None and one.id not in newer])
            answers |= dead_lists.discard(family, [one for one in batch if one.id not in newer], nonce=nonce)
        return answers

    def take_back(self, queue: str, letters: Sequence[DeadLetter], *, nonce: str) -> set[str]:
        return dead_lists.take_back(self._family(queue), letters, nonce=nonce)

    def restore(self, letter: DeadLetter) -> bool:
        return administration.restore(self._family(letter.queue), letter.id, letter=encode_letter(letter))

    def requeue_quarantined(self, queue: str, message_id: str) -> None:
        found = self._quarantine.find(queue, message_id)
        if found is None:
            raise not_quarantined(queue, message_id)
        as_read, entry, whole = found
        stays = f"message {message_id!r} stays in the quarantine"
        if whole is None:
            raise ActRefused(stays, "only its first bytes were kept; send it again, or discard it")
        family, lane = self._broker.lane(entry.queue)
        try:
            message = codec.decode(whole, message_id=message_id, lane=entry.queue)
            self._broker.emit_before("receive_message", message)
        except (codec.UnreadableMessage, MiddlewareError) as error:
            raise ActRefused(stays, str(error)) from error
        message.options["generation"] = int(message.options.get("generation", 0)) + 1
        body = codec.encode(message, grown=True)
        level, limit = self._broker.level(message), self._limit(family) if lane == "live" else 0
        try:
            how: dict[str, Any] = {"as_read": as_read, "body": body, "level": level, "limit": limit}
            administration.unquarantine(family, message_id, lane=lane, **how)
        except QueueFull as error:
            raise ActRefused(stays, str(error)) from error
        self._broker.emit_after("enqueue", message, None)

    def discard_quarantined(self, queue: str, message_id: str) -> None:
        found = self._quarantine.find(queue, message_id)
        if found is None:
            raise not_quarantined(queue, message_id)
        administration.unquarantine(self._family(queue), message_id, lane="live", as_read=found[0], body=b"")

    def find_message(self, queue: str, message_id: str) -> Message[Any] | None:
        family = self._family(queue)
        body = family.calls.command("HGET", family.keys.bodies, message_id)
        try:
            return None if body is None else codec.decode(body, message_id=message_id, lane=queue)
        except codec.UnreadableMessage:
            return None

    def knows(self, queue: str, message_id: str) -> bool:
        """Whether a message of this id waits, runs or has ended; not one that is dead."""
        family = self._family(queue)
        places = (family.keys.bodies, *family.keys.done)
        return any(family.calls.pipeline([("HEXISTS", place, message_id) for place in places]))

    def cancel(self, queue: str, message_id: str, *, end: CancelRecord = NO_RECORD) -> str:
        """Remove a scheduled message, mark a waiting one to be dropped, request cancellation of a leased one."""
        answers = administration.cancel(self._family(queue), {message_id: end.record}, limits=end[1:])
        return answers[message_id].removeprefix("was ")

    def due_now(self, queue: str, message_id: str) -> str:
        """Set a scheduled message's due time to now, in its schedule and in its body, from which waits are counted."""
        family = self._family(queue)
        while True:
            as_read = family.calls.command("HGET", family.keys.bodies, message_id)
            if as_read is None:
                return "unknown"
            body = _due_now(as_read, message_id, queue)
            answer = administration.due_now(family, message_id, as_read=as_read, body=body)
            if answer != BODY_CHANGED:
                return {1: "due", 0: "waiting"}.get(answer, "unknown")

    def cancel_requested(self, held: Held) -> bool:
        """Return what came with the message or was read since, four times a second."""
        return _held(held).cancel_requested

    def stats(self, queue: str) -> QueueStats:
        keys = self._family(queue).keys
        ages_held = self._yard.queue_of(queue).done_objective_ms is not None
        return family_stats(self._broker.calls, keys, ages_held=ages_held)

    def _ready(
        self,
        batch: list[dead_lists.StoredLetter],
        died_at: Mapping[str, int],
        lane: str,
        arguments: Arguments | None,
        answers: dict[str, Moved],
    ) -> dict[str, Message[Any]]:
        """Return the messages to enqueue by id; ``answers`` gets those that stay."""
        ready: dict[str, Message[Any]] = {}
        for one in batch:
            if one.stored is None:  # the script answers whether an earlier call moved it
                continue
            if one.letter is None:
                answers[one.id] = "unread"
            elif one.letter.died_at != died_at[one.id]:
                answers[one.id] = "newer"
            else:
                message = requeued_copy(one.letter, lane, arguments)
                try:
                    self._broker.emit_before("enqueue", message, None)
                except MiddlewareError:
                    answers[one.id] = "unread"
                else:
                    ready[one.id] = message
        return ready

    def _limit(self, family: QueueOperations) -> int:
        return self._broker.limits.of(family.keys.queue)

    def _move(self, held: Held, move: Move, lane: str, delay_ms: int, options: dict[str, Any]) -> None:
        message = _held(held)
        family, _ = self._broker.lane(lane)
        if family is not message.family:
            raise ValueError(f"{message.message_id} cannot move from {message.queue_name} to {lane}: another family")
        self._broker.move(message, moved_copy(held, lane, options), move=move, delay=delay_ms)

    def _lane(self, held: Held) -> UnroutableLane:
        message = _held(held)
        lane = lane_of(message.lease.owner)
        return UnroutableLane(message.family, "live" if lane == "alone" else lane)

    def _family(self, queue: str) -> QueueOperations:
        return self._broker.lane(self._yard.queue_of(queue).name)[0]


def _due_now(body: bytes, message_id: str, lane: str) -> bytes:
    """Return a body with the due time of now; one that cannot be read as it is: its consumer quarantines it."""
    try:
        message = codec.decode(body, message_id=message_id, lane=lane)
    except codec.UnreadableMessage:
        return body
    message.options["due_at"] = now_ms()
    return codec.encode(message, grown=True)


def _held(held: Held) -> HeldMessage:
    if not isinstance(held, HeldMessage):
        raise TypeError(f"{held!r:.200} is held by no worker of this broker; only such a message can be moved")
    return held
