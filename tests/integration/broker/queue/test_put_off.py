"""Messages put off or parked on the server: by pauses of actors, open circuits, unknown calls; what makes them due."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.admin.browse import pauses_in
from switchyard.broker.admin.purge import set_aside, undo
from switchyard.broker.admin.scheduled import STOPS, look
from switchyard.broker.clock import PUT_OFF_MS, put_off_reason
from switchyard.broker.queue import administration
from switchyard.broker.queue.limits import Circuit, note_circuit, resume_over
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.queue.unroutable import LONGEST_CALL, MOST_CALLS, UnroutableLane
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import ActorPause
from switchyard.broker.topology import Dependency
from tests.integration.broker.queue.conftest import ME, Family, now_ms, pause
from tests.waiting import wait_for


def test_the_others_of_the_queue_start_and_those_of_the_actor_wait_in_their_order(family):
    ids = [f"f{number:04}" for number in range(1_200)]
    family.send(*ids[:600])
    family.send("other", actor="mail")
    family.send(*ids[600:])
    made = pause(family)

    assert [ids_ for ids_ in [family.next() for _ in range(4)] if ids_] == [["other"]]
    assert sorted(family.put_off()) == ids
    assert family.calls.command("HLEN", family.keys.hold(ME)) == 2  # the number of the fetch, and the other one
    assert administration.resume_actor(family, made.field)
    assert [id_ for _ in range(6) for id_ in family.next()] == ids
    assert pauses_in([family]) == []
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        ({"kwargs": {"customer_id": 7}}, True),
        ({"args": [7, "x"]}, True),
        ({"kwargs": {"customer_id": 7.0}}, True),
        ({"kwargs": {"customer_id": 8}}, False),
        ({"kwargs": {"customer_id": "7"}}, False),
        ({"args": [8]}, False),
        ({"kwargs": {"other": 7}}, False),
        ({"args": None, "kwargs": [7]}, False),
        ({}, False),
    ],
)
def test_only_one_value_of_an_argument_waits(family, fields, matches):
    pause(family, argument="customer_id", position=1, value=7)
    family.send("one", **fields)
    family.send("other", actor="mail", **fields)

    assert family.next() == (["other"] if matches else ["one", "other"])
    assert family.put_off() == (["one"] if matches else [])


@pytest.mark.parametrize(
    "body", [b'{ "sent_at": 1, "actor": "fan_out" }', b'{"actor":"f\\u0061n_out","sent_at":1}', b'{"actor":"fan_out"}']
)
def test_the_actor_is_found_however_a_sender_writes_json(family, body):
    pause(family)
    family.enqueue([Entry("one", body)])

    assert (family.next(), family.put_off()) == ([], ["one"])


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"null", b'{"actor":[7]}', b"[" * 2_000])
def test_what_cannot_be_read_is_its_consumers_to_set_aside(family, body):
    pause(family, argument="a", position=1, value=None)
    family.enqueue([Entry("one", body)])

    assert family.next() == ["one"]


def test_it_ends_by_itself_and_a_consumer_hears_when(family):
    family.send("a", "b")
    pause(family, until=now_ms(family) + 300)

    answer = family.fetch(ME, 10, request=1)
    family.requests = 1

    assert answer.grants == [] and answer.next_due_ms is not None and answer.next_due_ms <= 301
    assert family.all_of(2) == ["a", "b"]
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


def test_delayed_ones_wait_when_they_are_due_and_retries_in_their_lane(family):
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


def test_a_resume_that_was_killed_is_completed_by_the_next_fetch(family):
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


def test_the_end_of_one_pause_starts_nothing_of_another(family):
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


def test_the_last_end_starts_also_what_a_clock_ahead_of_now_has_put_off(family):
    family.send("a")
    made = pause(family)
    family.next()
    family.calls.command("ZINCRBY", family.keys.due("live"), 90_000, "a")

    administration.resume_actor(family, made.field)

    assert family.next() == ["a"]


def test_a_due_time_of_a_sender_is_none_of_a_pause(family):
    family.send("never")
    far = 253_402_300_799_000
    family.calls.command("LREM", family.keys.waiting("live")[1], 0, "never")
    family.calls.command("ZADD", family.keys.due("live"), far, "never")
    made = pause(family)

    administration.resume_actor(family, made.field)

    assert family.due_times() == {"never": far}


def test_put_off_messages_are_cancelled_exactly(family):
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

    assert (sorted(seen), family.put_off()) == (ids, [])


def test_a_purge_that_is_undone_makes_what_was_put_off_due(family):
    family.send("a")
    made = pause(family)
    family.next()
    set_aside(family, "p1", by="ada", reason="")
    administration.resume_actor(family, made.field)

    undo(family, "p1")

    assert (family.put_off(), family.next()) == ([], ["a"])


def test_a_parked_message_of_a_paused_actor_is_not_adopted(family):
    family.send("parked", delay_ms=60_000)
    lane = UnroutableLane(family, "live")
    lane.add("parked", '["fan_out", 0, []]')
    made = pause(family)

    assert lane.adopt(ME, '["fan_out", 0, []]', [b"parked"]).grants == []
    assert (family.next(), family.put_off()) == ([], ["parked"])
    administration.resume_actor(family, made.field)
    assert family.next() == ["parked"]


def test_an_end_and_a_reason_are_replaced_and_the_start_stays(family):
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


def test_more_than_a_hundred_pauses_are_refused(family):
    for number in range(100):
        pause(family, argument="customer_id", value=number)

    with pytest.raises(ValueError, match="100 pauses"):
        pause(family, argument="customer_id", value=100)
    pause(family, argument="customer_id", value=7, reason="changed")


def test_a_fetch_whose_answer_was_lost_gets_the_same_messages(family):
    family.send("f1")
    family.send("m1", actor="mail")
    pause(family)

    first, again = family.fetch(ME, 10, request=1), family.fetch(ME, 10, request=1)

    assert [grant.lease.id for grant in first.grants] == [grant.lease.id for grant in again.grants] == [b"m1"]
    assert family.put_off() == ["f1"]


PAYMENTS = Dependency("payments", least=4, open_ms=100, longest_open_ms=200)
CIRCUIT = Circuit(PAYMENTS, 60_000, {"pay": 0, "refund": 0})
# Stays open for longer than a busy machine takes for any test.
LASTING = Circuit(Dependency("payments", least=4, open_ms=60_000, longest_open_ms=60_000), 60_000, CIRCUIT.calls)


def note(family: Family, outcome: str = "failed", id_: str = "x", circuit: Circuit = CIRCUIT, **more: Any) -> str:
    return note_circuit(family, circuit, id_, outcome, **more)


def open_it(family: Family, circuit: Circuit = CIRCUIT) -> None:
    assert [note(family, circuit=circuit) for _ in range(4)] == ["closed", "closed", "closed", "opened"]


def probe(family: Family) -> str:
    return family.all_of(1)[0]


def end(family: Family, id_: str) -> None:
    [lease] = [lease for lease in family.held(ME) if str(lease.id, "ascii") == id_]
    family.ack(ME, [lease])


def shift(family: Family, ms: int) -> None:
    """Have the circuit opened so much later, as by a clock that was ahead."""
    text = str(family.calls.command("HGET", family.keys.actor_pauses, CIRCUIT.field), "ascii")
    later = re.sub(r'(?<="since":|"until":)\d+', lambda found: str(int(found[0]) + ms), text)
    family.calls.command("HSET", family.keys.actor_pauses, CIRCUIT.field, later)


def test_all_actors_that_call_it_wait_and_others_start(family):
    open_it(family, LASTING)
    for id_, actor in {"p1": "pay", "r1": "refund", "m1": "mail"}.items():
        family.send(id_, actor=actor)
    family.calls.command("HSET", family.keys.actor_pauses, "x", "no circuit")  # of another program

    assert family.next() == ["m1"]
    assert [put_off_reason(due_at) for due_at in family.due_times().values()] == ["circuit_open"] * 2
    assert note(family, circuit=LASTING) == "open"
    assert note(family, "ok", circuit=LASTING) == "closed"  # of a call that began before
    assert family.next() == []


def test_a_clock_that_was_ahead_delays_no_probe(family):
    family.send("p1", actor="pay")
    family.calls.command("SET", family.keys.swept, now_ms(family) + 86_400_000)
    open_it(family)
    shift(family, 86_400_000)
    family.calls.command("HSET", family.keys.actor_pauses, "x", "no circuit")  # of another program

    family.lapsed()

    assert probe(family) == "p1"


def test_it_opens_at_the_share_of_failures_since_the_first(family):
    for _ in range(9):
        assert note(family, "ok") == "closed"
    assert not family.calls.command("EXISTS", family.keys.circuit(CIRCUIT.digest))

    assert [note(family, outcome) for outcome in ("failed", "ok", "ok", "ok", "failed", "failed")][-1] == "opened"


def test_failures_of_an_older_window_do_not_count(family):
    brief = Circuit(Dependency("payments", least=2, window_ms=30), 60_000, {"pay": 0})
    assert note(family, circuit=brief) == "closed"
    wait_for(lambda: not family.calls.command("EXISTS", family.keys.circuit(brief.digest)))

    assert note(family, circuit=brief) == "closed"


def test_one_message_probes_at_a_time_in_their_order_and_a_success_releases_the_rest(family):
    open_it(family)
    ids = [f"p{number:03}" for number in range(20)]
    family.send(*ids, actor="pay")

    first = probe(family)
    assert (first, family.next()) == ("p000", [])
    assert note(family, id_=first) == "probed"
    end(family, first)
    second = probe(family)
    assert (second, note(family, "ok", id_="x"), family.next()) == ("p001", "closed", [])
    assert note(family, "ok", id_=second) == "closed"

    assert family.all_of(18) == ids[2:]
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


def test_two_probes_must_succeed_where_two_are_asked_for(family):
    twice = Circuit(Dependency("payments", least=4, open_ms=50, probes=2), 60_000, {"pay": 0})
    open_it(family, twice)
    family.send("p1", "p2", "p3", actor="pay")

    assert note(family, "ok", probe(family), twice) == "closed"
    assert note(family, "ok", probe(family), twice) == "closed"

    assert probe(family) == "p3"
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


def test_the_next_message_probes_where_none_waits(family):
    open_it(family)
    wait_for(
        lambda: family.next() == [] and b'"probe":"*"' in family.calls.command("HGETALL", family.keys.actor_pauses)[1]
    )
    family.send("p1", "p2", actor="pay")

    assert family.next() == ["p1"]
    assert list(family.due_times()) == ["p2"]


def test_a_probe_that_never_ends_is_replaced(family):
    brief = Circuit(PAYMENTS, 50, {"pay": 0})
    open_it(family, brief)
    family.send("p1", "p2", actor="pay")

    assert [probe(family), probe(family)] == ["p1", "p2"]


def test_a_probe_whose_worker_was_killed_starts_again(family):
    open_it(family)
    family.send("p1", "p2", actor="pay")
    assert probe(family) == "p1"

    family.reclaim(ME)
    family.join("other/live")

    assert family.next(owner="other/live") == ["p1"]


@pytest.mark.parametrize(
    ("age_ms", "declared", "stays"),
    [
        (700_000, {"pay": "payments", "refund": "payments"}, True),
        (0, {"pay": None, "refund": None}, True),
        (700_000, {"pay": None, "refund": "payments"}, False),
        (700_000, {"pay": "payments per host", "refund": "payments"}, False),
        (700_000, {}, False),
    ],
)
def test_a_circuit_that_an_actor_of_it_no_longer_declares_is_closed_after_a_deploy(family, age_ms, declared, stays):
    actors: Any = [SimpleNamespace(actor_name=name, options={"depends_on": spec}) for name, spec in declared.items()]
    open_it(family)
    family.send(*(f"p{number}" for number in range(9)), actor="pay")
    found = family.next()  # none, or on a busy machine the first, as a probe
    shift(family, -age_ms)

    resume_over(family, actors)

    wait_for(lambda: found.extend(family.next()) or len(found) == (1 if stays else 9))  # type: ignore[func-returns-value]
    assert bool(family.calls.command("EXISTS", family.keys.actor_pauses)) == stays


def test_only_one_value_of_an_argument_waits_at_its_place_in_each_actor(family):
    one = Circuit(PAYMENTS, 60_000, {"pay": 2, "refund": 0}, "host", "a.example")
    open_it(family, one)
    family.send("p1", actor="pay", args=[7, "a.example"])
    family.send("p2", actor="pay", args=["a.example", 7])
    family.send("r1", actor="refund", kwargs={"host": "a.example"})
    family.send("r2", actor="refund", kwargs={"host": "b.example"})

    assert family.next() == ["p2", "r2"]


def test_a_person_closes_it_and_what_waits_in_every_lane_is_due(family):
    open_it(family, LASTING)
    family.send("p1", actor="pay")
    family.enqueue([Entry("p2", b'{"actor":"pay","sent_at":1}')], lane="retry")
    family.join("me/retry")
    assert (family.next(), family.next(owner="me/retry")) == ([], [])

    assert administration.resume_actor(family, LASTING.field)
    assert not administration.resume_actor(family, LASTING.field)

    wait_for(lambda: family.next() == ["p1"])
    wait_for(lambda: family.next(owner="me/retry") == ["p2"])


def test_a_pause_of_the_actor_holds_what_its_circuit_releases_and_the_other_way_round(family):
    open_it(family, LASTING)
    family.send("p1", actor="pay")
    assert family.next() == []
    made = pause(family, "pay")
    administration.resume_actor(family, LASTING.field)

    wait_for(
        lambda: family.next() == [] and {put_off_reason(at) for at in family.due_times().values()} == {"actor_paused"}
    )
    open_it(family, LASTING)
    administration.resume_actor(family, made.field)
    assert family.next() == []
    assert {put_off_reason(at) for at in family.due_times().values()} == {"circuit_open"}


def test_circuits_leave_room_for_pauses_by_people(family):
    hosts = [Circuit(Dependency("web", least=1), 60_000, {"pay": 1}, "host", f"h{number}") for number in range(82)]

    opened = [note(family, circuit=host) for host in hosts]

    assert (opened.count("opened"), opened[80:]) == (80, ["closed", "closed"])
    pause(family)


def test_a_circuit_for_which_nothing_waits_gives_its_place_to_another(family):
    brief = Dependency("web", least=1, open_ms=30, longest_open_ms=30)
    hosts = [Circuit(brief, 60_000, {"pay": 1}, "host", f"h{number}") for number in range(81)]
    family.send("waits", actor="pay", args=["h0"])
    assert [note(family, circuit=host) for host in hosts[:80]] == ["opened"] * 80
    key = family.keys.actor_pauses
    wait_for(
        lambda: family.next() is not None and sum(b'"*"' in text for text in family.calls.command("HVALS", key)) == 79
    )

    assert note(family, circuit=hosts[80]) == "opened"

    left = {each.value for each in pauses_in([family])}
    assert len(left) == 80
    assert {"h0", "h80"} <= left


def test_a_time_that_was_asked_for_opens_it_and_moves_its_probe(family):
    family.send("p1", actor="pay")

    assert note(family, until_ms=now_ms(family) + 3_600_000) == "opened"
    assert family.next() == []
    later = now_ms(family) + 7_200_000
    assert note(family, until_ms=later) == "open"
    assert note(family, until_ms=later - 1_000) == "open"
    assert [each.until for each in pauses_in([family])] == [later]


def test_a_purge_that_is_undone_makes_what_a_circuit_has_put_off_due(family):
    open_it(family, LASTING)
    family.send("p1", actor="pay")
    assert family.next() == []
    set_aside(family, "purge", by="ada", reason="")
    administration.resume_actor(family, LASTING.field)
    undo(family, "purge")

    assert probe(family) == "p1"


CALL, OTHER = '["audit", 1, []]', '["audit", 1, ["b"]]'
SOMEBODY = "somebody/live"


@pytest.fixture
def family(family: QueueOperations) -> QueueOperations:
    """A family in which two owners have their lease."""
    family.join(SOMEBODY)
    return family


@pytest.fixture
def lane(family: QueueOperations) -> UnroutableLane:
    return UnroutableLane(family, "live")


def park(
    family: QueueOperations, lane: UnroutableLane, *ids: str, call: str = CALL, delay_ms: int = 60_000
) -> list[bytes]:
    family.enqueue([Entry(id_, b"{}") for id_ in ids], delay_ms=delay_ms)
    for id_ in ids:
        lane.add(id_, call)
    return [id_.encode() for id_ in ids]


def held(family: QueueOperations, owner: str = ME) -> set[bytes]:
    return {lease.id for lease in family.held(owner)}


def due(family: QueueOperations) -> int:
    return int(family.calls.command("ZCARD", family.keys.due("live")))


def test_calls_are_told_once_each_and_ids_by_call_and_the_list_expires(family, lane):
    mine = park(family, lane, "a", "b", "c")
    others = park(family, lane, "d", call=OTHER)

    assert lane.calls() == [OTHER, CALL] or lane.calls() == [CALL, OTHER]
    assert (lane.ids(CALL, 10), lane.ids(OTHER, 10), lane.ids(CALL, 2)) == (mine, others, mine[:2])
    assert 0 < family.calls.command("PTTL", family.keys.parked("live")) <= 20 * 60_000


def test_what_is_adopted_is_leased_and_neither_scheduled_nor_on_the_list(family, lane):
    ids = park(family, lane, "a", "b")

    adopted = lane.adopt(ME, CALL, ids)

    assert (adopted.state, [grant.lease.id for grant in adopted.grants]) == ("ok", ids)
    assert {grant.body for grant in adopted.grants} == {b"{}"}
    assert (held(family), due(family), lane.calls()) == (set(ids), 0, [])
    assert family.ack(ME, [grant.lease for grant in adopted.grants]) == []


def test_of_two_who_saw_the_same_one_gets_it_and_gets_it_again_where_the_answer_was_lost(family, lane):
    ids = park(family, lane, "a")

    mine, again, others = (lane.adopt(owner, CALL, ids) for owner in (ME, ME, SOMEBODY))

    assert (len(mine.grants), again.grants, len(others.grants)) == (1, mine.grants, 0)
    assert held(family, SOMEBODY) == set()


def test_what_the_owner_fetched_when_it_was_due_is_not_handed_out_again(family, lane):
    ids = park(family, lane, "a", delay_ms=0)
    assert len(family.fetch(ME, 1, request=1).grants) == 1

    assert lane.adopt(ME, CALL, ids).grants == []
    assert (held(family), lane.calls()) == ({b"a"}, [])


def test_what_was_cancelled_is_only_taken_off_the_list(family, lane):
    ids = park(family, lane, "a")
    administration.cancel(family, {"a": b""})

    assert (lane.adopt(ME, CALL, ids).grants, lane.calls()) == ([], [])


def test_a_paused_queue_has_nothing_adopted_and_an_owner_without_lease_gets_nothing(family, lane):
    ids = park(family, lane, "a")
    gone = lane.adopt("nobody/live", CALL, ids)
    administration.pause(family)
    paused = lane.adopt(ME, CALL, ids)

    assert (gone.state, gone.grants, paused.state, paused.grants) == ("gone", [], "paused", [])
    assert (due(family), lane.ids(CALL, 10)) == (1, ids)


CRASHED = "2 1700000000000 alone\n@1700000000000,1700000000001 -"


def test_what_is_noted_of_crashes_and_cancels_comes_with_it(family, lane):
    ids = park(family, lane, "a")
    family.calls.command("HSET", family.keys.notes, "crash:a", CRASHED, "asked:a", "1")

    [grant] = lane.adopt(ME, CALL, ids).grants

    assert (grant.crashes, grant.cancel_requested, grant.cause) == (2, True, "alone")


def test_a_call_is_known_for_a_while_after_somebody_looked_for_it(family, lane):
    before = lane.known_lately(CALL, 60_000)
    lane.adopt(ME, CALL, [])

    assert (before, lane.known_lately(CALL, 60_000), lane.known_lately(OTHER, 60_000)) == (False, True, False)
    assert not lane.known_lately(CALL, 0)


def test_a_message_that_ran_is_off_the_list_and_an_endless_call_never_on_it(family, lane):
    park(family, lane, "a")
    lane.remove("a", CALL)
    lane.add("b", "x" * (LONGEST_CALL + 1))

    assert lane.calls() == []


def test_what_somebody_wrote_onto_the_list_by_hand_stops_nobody(family, lane):
    for rubbish in (b"\xff\xfe", b"\xff\xfe\nid", b"", b"\n", b"no call\nid"):
        family.calls.command("ZADD", family.keys.parked("live"), 0, rubbish)
    park(family, lane, "a")

    assert CALL in lane.calls() and len(lane.calls()) == 4
    assert lane.adopt(ME, "no call", [b"id"]).grants == []


def test_a_list_without_end_is_looked_at_bit_by_bit(family, lane):
    calls = [f'["a", {number}, []]' for number in range(2 * MOST_CALLS + 10)]
    for call in calls:
        lane.add("a", call)

    looks = [lane.calls() for _ in range(4)]

    assert [len(look) for look in looks] == [MOST_CALLS, MOST_CALLS, 10, MOST_CALLS]
    assert sorted(call for look in looks[:3] for call in look) == sorted(calls)


def test_what_is_scheduled_no_more_is_taken_off_the_list(family, lane):
    for id_ in "abc":
        park(family, lane, id_)
    administration.cancel(family, {"a": b"", "c": b""})

    lane.tidy()

    assert lane.ids(CALL, 9) == [b"b"]


def test_what_is_adopted_by_one_who_dies_goes_back(family, lane):
    lane.adopt(ME, CALL, park(family, lane, "a"))

    reclaimed = family.reclaim(ME)

    assert reclaimed is not None and reclaimed.returned == 1
    assert [grant.lease.id for grant in family.fetch(SOMEBODY, 1, request=1).grants] == [b"a"]
