"""Pauses of actors on the server: what is put off, what starts meanwhile, and what makes it due again."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.broker.admin.browse import pauses_in
from switchyard.broker.admin.purge import set_aside, undo
from switchyard.broker.admin.scheduled import STOPS, look
from switchyard.broker.clock import PUT_OFF_MS
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry
from switchyard.broker.queue.unroutable import UnroutableLane
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import ActorPause
from tests.integration.broker.queue.conftest import ME, Family, now_ms, pause
from tests.waiting import wait_for


def test_the_others_of_the_queue_start_and_those_of_the_actor_wait_in_their_order(family: Family) -> None:
    ids = [f"f{number:04}" for number in range(1_200)]
    family.send(*ids[:600])
    family.send("other", actor="mail")
    family.send(*ids[600:])
    made = pause(family)

    started = [family.next() for _ in range(4)]

    assert [ids_ for ids_ in started if ids_] == [["other"]]
    assert sorted(family.put_off()) == ids
    assert family.calls.command("HLEN", family.keys.hold(ME)) == 2  # the number of the fetch, and the other one
    assert administration.resume_actor(family, made.field)
    again = [*family.next(), *family.next(), *family.next(), *family.next(), *family.next(), *family.next()]
    assert again == ids
    assert pauses_in([family]) == []
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        *(({"kwargs": {"customer_id": 7}}, True), ({"args": [7, "x"]}, True)),
        *(({"kwargs": {"customer_id": 7.0}}, True), ({"kwargs": {"customer_id": 8}}, False)),
        *(({"kwargs": {"customer_id": "7"}}, False), ({"args": [8]}, False), ({"kwargs": {"other": 7}}, False)),
        *(({"args": None, "kwargs": [7]}, False), ({}, False)),
    ],
)
def test_only_one_value_of_an_argument_waits(family: Family, fields: dict[str, Any], matches: bool) -> None:
    pause(family, argument="customer_id", position=1, value=7)
    family.send("one", **fields)
    family.send("other", actor="mail", **fields)

    assert family.next() == (["other"] if matches else ["one", "other"])
    assert family.put_off() == (["one"] if matches else [])


@pytest.mark.parametrize(
    "body", [b'{ "sent_at": 1, "actor": "fan_out" }', b'{"actor":"f\\u0061n_out","sent_at":1}', b'{"actor":"fan_out"}']
)
def test_the_actor_is_found_however_a_sender_writes_json(family: Family, body: bytes) -> None:
    pause(family)
    family.enqueue([Entry("one", body)])

    assert family.next() == []
    assert family.put_off() == ["one"]


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"null", b'{"actor":[7]}', b"[" * 2_000])
def test_what_cannot_be_read_is_its_consumers_to_set_aside(family: Family, body: bytes) -> None:
    pause(family, argument="a", position=1, value=None)
    family.enqueue([Entry("one", body)])

    assert family.next() == ["one"]


def test_it_ends_by_itself_and_a_consumer_hears_when(family: Family) -> None:
    family.send("a", "b")
    pause(family, until=now_ms(family) + 300)

    answer = family.fetch(ME, 10, request=1)
    family.requests = 1

    assert answer.grants == [] and answer.next_due_ms is not None and answer.next_due_ms <= 301
    found: list[str] = []
    wait_for(lambda: found.extend(family.next()) or len(found) == 2)
    assert found == ["a", "b"]
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


def test_delayed_ones_wait_when_they_are_due_and_retries_in_their_lane(family: Family) -> None:
    family.join("me/retry")
    family.send("later", delay_ms=60_000)
    family.calls.command("ZADD", family.keys.due("live"), 1, "later")
    family.enqueue([Entry("retry", b'{"actor":"fan_out","sent_at":1,"options":{"attempts":1}}')], lane="retry")
    made = pause(family)

    assert (family.next(), family.next(owner="me/retry")) == ([], [])
    assert family.put_off() == ["later"]
    assert family.calls.command("ZCOUNT", family.keys.due("retry"), PUT_OFF_MS, "+inf") == 1
    administration.resume_actor(family, made.field)
    assert (family.next(), family.next(owner="me/retry")) == (["later"], ["retry"])


def test_a_resume_that_was_killed_is_completed_by_the_next_fetch(family: Family) -> None:
    ids = [f"f{number:04}" for number in range(700)]
    family.send(*ids)
    made = pause(family)
    assert family.next() == family.next() == []

    k = family.keys
    keys = [k.actor_pauses, *(k.due(lane) for lane in ("live", "retry", "alone"))]  # type: ignore[arg-type]
    keys += [k.wakeup(lane) for lane in ("live", "retry", "alone")]  # type: ignore[arg-type]
    assert family.calls.call(script("resume_actor"), keys, [made.field, 500]) == [1, 1]

    assert len(family.put_off()) == 200
    assert [*family.next(), *family.next(), *family.next(), *family.next()] == ids


def test_the_end_of_one_pause_starts_nothing_of_another(family: Family) -> None:
    family.send("f1", "f2")
    family.send("m1", "m2", actor="mail")
    first, second = pause(family), pause(family, "mail", reason="bounces")
    assert family.next() == []

    administration.resume_actor(family, first.field)

    assert family.next() == ["f1", "f2"]
    assert sorted(family.put_off()) == ["m1", "m2"]
    assert [each.named for each in pauses_in([family])] == ["mail"]
    administration.resume_actor(family, second.field)
    assert family.next() == ["m1", "m2"]


def test_the_last_end_starts_also_what_a_clock_ahead_of_now_has_put_off(family: Family) -> None:
    family.send("a")
    made = pause(family)
    family.next()
    family.calls.command("ZINCRBY", family.keys.due("live"), 90_000, "a")

    administration.resume_actor(family, made.field)

    assert family.next() == ["a"]


def test_a_due_time_of_a_sender_is_none_of_a_pause(family: Family) -> None:
    family.send("never")
    far = 253_402_300_799_000
    family.calls.command("LREM", family.keys.waiting("live")[1], 0, "never")
    family.calls.command("ZADD", family.keys.due("live"), far, "never")
    made = pause(family)

    administration.resume_actor(family, made.field)

    assert family.due_times() == {"never": far}


def test_put_off_messages_are_cancelled_exactly(family: Family) -> None:
    ids = [f"f{number:04}" for number in range(700)]
    family.send(*ids)
    pause(family)
    assert family.next() == family.next() == []

    seen: list[str] = []
    after = None
    while True:
        page, after = look(family, STOPS[0], after, 100)
        answers = administration.cancel(family, dict.fromkeys((one.id for one in page), b""), nonce="n")
        seen += [id_ for id_, answer in answers.items() if answer == "cancelled"]
        if after is None:
            break

    assert sorted(seen) == ids
    assert family.put_off() == []


def test_a_purge_that_is_undone_makes_what_was_put_off_due(family: Family) -> None:
    family.send("a")
    made = pause(family)
    family.next()
    set_aside(family, "p1", by="ada", reason="")
    administration.resume_actor(family, made.field)

    undo(family, "p1")

    assert family.put_off() == []
    assert family.next() == ["a"]


def test_a_parked_message_of_a_paused_actor_is_not_adopted(family: Family) -> None:
    family.send("parked", delay_ms=60_000)
    lane = UnroutableLane(family, "live")
    lane.add("parked", '["fan_out", 0, []]')
    made = pause(family)

    assert lane.adopt(ME, '["fan_out", 0, []]', [b"parked"]).grants == []
    assert family.next() == []
    assert family.put_off() == ["parked"]
    administration.resume_actor(family, made.field)
    assert family.next() == ["parked"]


def test_an_end_and_a_reason_are_replaced_and_the_start_stays(family: Family) -> None:
    pause(family, reason='first "quoted" \n ünïcode')
    first = pauses_in([family])[0]
    end = now_ms(family) + 60_000

    unchanged = administration.pause_actor(family, ActorPause(0, 0, 0, "fan_out"))
    administration.pause_actor(family, ActorPause(0, end, 0, "fan_out", by="bob", reason="second"))
    second = pauses_in([family])[0]

    assert unchanged is False
    assert first.reason == 'first "quoted" \n ünïcode'
    assert (second.since, second.until, second.by, second.reason) == (first.since, end, "bob", "second")
    with pytest.raises(ValueError, match="is over"):
        pause(family, until=1)


def test_more_than_a_hundred_pauses_are_refused(family: Family) -> None:
    for number in range(100):
        pause(family, argument="customer_id", value=number)

    with pytest.raises(ValueError, match="100 pauses"):
        pause(family, argument="customer_id", value=100)
    pause(family, argument="customer_id", value=7, reason="changed")


def test_a_fetch_whose_answer_was_lost_gets_the_same_messages(family: Family) -> None:
    family.send("f1")
    family.send("m1", actor="mail")
    pause(family)

    first, again = family.fetch(ME, 10, request=1), family.fetch(ME, 10, request=1)

    assert [grant.lease.id for grant in first.grants] == [grant.lease.id for grant in again.grants] == [b"m1"]
    assert family.put_off() == ["f1"]
