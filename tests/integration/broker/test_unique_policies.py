"""Unique keys that are held until the start or for a window, and the message with the key when another is sent."""

import json
import random
import uuid
from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from switchyard.broker.errors import QueueFull
from switchyard.broker.queue.administration import cancel
from switchyard.broker.queue.operations import Entry, Grant, QueueOperations, policy_key
from tests.waiting import wait_for

KEYS = ("a", "b")
KEEP, REPLACE, DELAY, DONE = "keep", "replace", "delay", "done"
MINUTE = 60_000


def options_of(policy: str) -> dict[str, Any]:
    return {} if policy == DONE else {"unique_until": "started", "on_duplicate": policy}


class Walk:
    """A family, and what must be true of its unique keys."""

    def __init__(self, family: QueueOperations) -> None:
        self.family = family
        self.owner, self.request, self.sent = "", 0, 0
        self.holders: dict[str, str] = {}  # by the key as it is stored
        self.bodies: dict[str, bytes] = {}
        self.held: dict[str, Grant] = {}
        self.join()

    def join(self) -> None:
        self.owner = f"{uuid.uuid4().hex}/live"
        self.family.join(self.owner)

    def send(self, key: str, policy: str, *, delay_ms: int = 0, again: bool = False) -> str:
        self.sent += 1
        id_, body = f"m{self.sent}", json.dumps({"actor": "job", "sent_at": self.sent}).replace(" ", "").encode()
        entry = Entry(id_, body, policy_key(key, options_of(policy)))
        [standing] = self.family.enqueue([entry], delay_ms=delay_ms)
        if again:  # the answer was lost
            assert self.family.enqueue([entry], delay_ms=delay_ms) == [standing]
        stored = key if policy == DONE else f"\1{key}"
        assert standing == self.holders.setdefault(stored, id_)
        if standing == id_ or policy in (REPLACE, DELAY):
            self.bodies[standing] = body
        return standing

    def fetch(self, count: int) -> list[str]:
        self.request += 1
        granted = self.family.fetch(self.owner, count, request=self.request).grants
        for grant in granted:
            id_ = str(grant.lease.id, "ascii")
            assert grant.body == self.bodies[id_], "it starts with what was sent last while it waited"
            self.held[id_] = grant
            self.free(id_, only_started=True)
        return [str(grant.lease.id, "ascii") for grant in granted]

    def end(self, id_: str) -> None:
        assert self.family.ack(self.owner, [self.held.pop(id_).lease]) == []
        self.free(id_)
        del self.bodies[id_]

    def killed(self) -> None:
        """The process is gone, and what it held waits again."""
        self.family.reclaim(self.owner)
        self.held.clear()
        self.join()

    def cancelled(self, id_: str) -> None:
        if cancel(self.family, {id_: b""}) == {id_: "cancelled"}:
            self.free(id_)

    def free(self, id_: str, *, only_started: bool = False) -> None:
        self.holders = {
            key: holder
            for key, holder in self.holders.items()
            if holder != id_ or (only_started and not key.startswith("\1"))
        }

    def check(self) -> None:
        """Compare the keys with what they must be: at most one holder each, which is unfinished, and its note."""
        keys = self.family.keys
        stored, noted = (self.family.calls.command("HGETALL", key) for key in (keys.unique, keys.notes))
        found = {str(key, "ascii"): str(id_, "ascii") for key, id_ in zip(stored[::2], stored[1::2], strict=True)}
        notes = {
            str(value, "ascii"): str(name, "ascii").removeprefix("key:")
            for name, value in zip(noted[::2], noted[1::2], strict=True)
            if name.startswith(b"key:")
        }
        assert found == notes == self.holders
        assert set(found.values()) <= self.bodies.keys()


@pytest.fixture
def walk(family: QueueOperations) -> Walk:
    return Walk(family)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_finds_one_holder_of_a_key_and_a_free_key_after_start_end_or_cancellation(walk, seed):
    dice = random.Random(seed)
    for _ in range(250):
        act = dice.choice(["send"] * 5 + ["fetch"] * 2 + ["end"] * 2 + ["killed", "cancel"])
        if act == "send":
            policy = dice.choice([DONE, KEEP, REPLACE, DELAY])
            walk.send(dice.choice(KEYS), policy, delay_ms=dice.choice([0, 0, MINUTE]), again=dice.random() < 0.3)
        elif act == "fetch":
            walk.fetch(dice.choice([1, 2]))
        elif act == "end" and walk.held:
            walk.end(dice.choice(sorted(walk.held)))
        elif act == "killed":
            walk.killed()
        elif act == "cancel" and walk.holders:
            walk.cancelled(dice.choice(sorted(walk.holders.values())))
        walk.check()


def test_a_message_that_a_killed_worker_had_started_does_not_get_its_key_back(walk):
    first = walk.send("a", KEEP)
    walk.fetch(1)
    second = walk.send("a", KEEP)
    walk.killed()

    assert walk.send("a", KEEP) == second
    assert walk.fetch(2) == [first, second]


@pytest.mark.parametrize("policy", [DONE, KEEP, REPLACE, DELAY])
def test_a_send_that_is_repeated_once_its_holder_has_started_is_no_new_job(walk, policy):
    first = walk.send("a", policy)
    entry = Entry("again", b'{"actor":"job","sent_at":2}', policy_key("a", options_of(policy)))
    assert walk.family.enqueue([entry]) == [first]
    walk.bodies[first] = walk.family.calls.command("HGET", walk.family.keys.bodies, first)
    assert walk.fetch(2) == [first]

    assert walk.family.enqueue([entry]) == [first]  # its answer was lost, or the relay sends it too
    walk.end(first)
    later = walk.send("a", policy)
    body = walk.bodies[later]
    assert walk.family.enqueue([entry]) == [first]

    assert walk.fetch(2) == [later]
    assert walk.held[later].body == body


def test_a_delayed_send_moves_the_scheduled_one_later_and_never_earlier(walk):
    due = walk.family.keys.due("live")

    def due_ms() -> float:
        return float(walk.family.calls.command("ZSCORE", due, first))

    first = walk.send("a", DELAY, delay_ms=MINUTE)
    before = due_ms()
    walk.send("a", DELAY, delay_ms=10 * MINUTE)
    later = due_ms()
    walk.send("a", DELAY, delay_ms=MINUTE)

    assert later >= before + 9 * MINUTE
    assert due_ms() == later
    assert walk.family.calls.command("ZCARD", due) == 1


def test_the_last_of_many_in_one_call_replaces_the_first(walk):
    key = policy_key("a", options_of(REPLACE))
    bodies = [json.dumps({"actor": "job", "sent_at": n}).encode() for n in range(3)]

    standing = walk.family.enqueue([Entry(f"x{n}", body, key) for n, body in enumerate(bodies)])

    assert standing == ["x0", "x0", "x0"]
    [grant] = walk.family.fetch(walk.owner, 2, request=1).grants
    assert (grant.lease.id, grant.body) == (b"x0", bodies[2])


def test_a_refused_call_replaces_nothing(walk):
    first = walk.send("a", REPLACE)
    again = Entry("y0", b'{"actor":"job","sent_at":9}', policy_key("a", options_of(REPLACE)))

    with pytest.raises(QueueFull):
        walk.family.enqueue([again, Entry("y1", b"{}")], limit=1)

    assert walk.family.calls.command("HGET", walk.family.keys.bodies, first) == walk.bodies[first]


def test_a_window_is_closed_to_the_end_whatever_becomes_of_its_message_and_then_open(family, valkey):
    owner = "one/live"
    family.join(owner)

    def send(id_: str, window_ms: int) -> str:
        [standing] = family.enqueue([Entry(id_, b"{}", policy_key("a", {"unique_for": window_ms}))])
        return standing

    window = family.keys.unique_window("a")
    assert send("w0", MINUTE) == "w0"
    [grant] = family.fetch(owner, 1, request=1).grants
    family.ack(owner, [grant.lease])
    assert send("again", 10 * MINUTE) == "w0"
    assert 0 < valkey.pttl(window) <= MINUTE  # a later message moves no end
    valkey.pexpire(window, 1)
    wait_for(lambda: not valkey.exists(window))

    assert send("w1", 10 * MINUTE) == "w1"
    assert MINUTE < valkey.pttl(window) <= 10 * MINUTE
    assert send("w1", MINUTE) == "w1"
    assert not family.calls.command("HLEN", family.keys.unique)


def test_an_actor_declares_the_policy_of_its_messages(broker):
    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None: ...

    job.options.update(unique_until="started", on_duplicate="replace")

    def send(number: int) -> Message[Any]:
        return broker.enqueue(job.message_with_options(args=(number,), unique_key="a"))

    first, second = send(1), send(2)
    consumer = broker.consume("work", prefetch=1, timeout=30_000)
    started = next(consumer)
    third = send(3)

    assert first.message_id == second.message_id == started.message_id != third.message_id  # type: ignore[union-attr]
    assert started.args == (2,)  # type: ignore[union-attr]
