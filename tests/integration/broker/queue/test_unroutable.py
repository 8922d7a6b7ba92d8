"""The list of what is parked, and the one operation that takes from it."""

import pytest

from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.queue.unroutable import LONGEST_CALL, MOST_CALLS, UnroutableLane

CALL, OTHER = '["audit", 1, []]', '["audit", 1, ["b"]]'
ME, SOMEBODY = "me/live", "somebody/live"


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


def test_calls_are_told_once_each_and_ids_by_call(family, lane):
    mine = park(family, lane, "a", "b", "c")
    others = park(family, lane, "d", call=OTHER)

    assert lane.calls() == [OTHER, CALL] or lane.calls() == [CALL, OTHER]
    assert (lane.ids(CALL, 10), lane.ids(OTHER, 10), lane.ids(CALL, 2)) == (mine, others, mine[:2])


def test_what_is_adopted_is_leased_and_neither_scheduled_nor_on_the_list(family, lane):
    ids = park(family, lane, "a", "b")

    adopted = lane.adopt(ME, CALL, ids)

    assert (adopted.state, [grant.lease.id for grant in adopted.grants]) == ("ok", ids)
    assert {grant.body for grant in adopted.grants} == {b"{}"}
    assert (held(family), due(family), lane.calls()) == (set(ids), 0, [])
    assert family.ack(ME, [grant.lease for grant in adopted.grants]) == []


def test_an_adoption_whose_answer_was_lost_leases_nothing_twice(family, lane):
    ids = park(family, lane, "a")

    assert lane.adopt(ME, CALL, ids).grants == lane.adopt(ME, CALL, ids).grants != []


def test_of_two_who_saw_the_same_one_gets_it(family, lane):
    ids = park(family, lane, "a")

    mine, others = lane.adopt(ME, CALL, ids), lane.adopt(SOMEBODY, CALL, ids)

    assert (len(mine.grants), len(others.grants)) == (1, 0)
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


def test_the_list_expires(family, lane):
    park(family, lane, "a")

    assert 0 < family.calls.command("PTTL", family.keys.parked("live")) <= 20 * 60_000


def test_what_is_adopted_by_one_who_dies_goes_back(family, lane):
    lane.adopt(ME, CALL, park(family, lane, "a"))

    reclaimed = family.reclaim(ME)

    assert reclaimed is not None and reclaimed.returned == 1
    assert [grant.lease.id for grant in family.fetch(SOMEBODY, 1, request=1).grants] == [b"a"]
