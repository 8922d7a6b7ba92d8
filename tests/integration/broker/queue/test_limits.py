"""Limits on what runs at once: who gets a place, who waits, and who is next, whatever ends the one that has it."""

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.broker.admin.limits import key_page, limit_states, override_limit
from switchyard.broker.admin.purge import set_aside, undo
from switchyard.broker.clock import put_off_reason
from switchyard.broker.keys import ALL_LANES
from switchyard.broker.queue import administration, limits
from switchyard.broker.queue.limits import Override
from switchyard.broker.queue.operations import Entry, Lease, lane_of
from switchyard.broker.topology import FairShare
from tests.integration.broker.queue.conftest import ME, Family, now_ms, pause
from tests.waiting import wait_for

OTHER, RETRY, ALONE = "other/live", "me/retry", "me/alone"


@pytest.fixture
def family(family: Family) -> Family:
    for owner in (OTHER, RETRY, ALONE):
        family.join(owner)
    return family


def declare(family: Family, name: str = "fan_out", **options: Any) -> None:
    def function(customer_id: int = 1, host: str = "a") -> None: ...

    broker = StubBroker(middleware=[])
    broker.actor_options |= {"concurrency", "ordered_by"}
    limits.declare(family, [dramatiq.actor(function, actor_name=name, broker=broker, **options)])


def lease_of(family: Family, id_: str) -> Lease:
    [lease] = [lease for owner in family.owners() for lease in family.held(owner) if lease.id == id_.encode()]
    return lease


def end(family: Family, *ids: str) -> None:
    for id_ in ids:
        lease = lease_of(family, id_)
        assert family.ack(lease.owner, [lease]) == []


def ended_one_by_one(family: Family, ids: Iterable[str]) -> list[str]:
    """End messages, and return the ids of those that each end lets start."""
    return [started for id_ in ids for started in end(family, id_) or family.next()]


def reasons(family: Family) -> dict[str, str]:
    return {id_: put_off_reason(due_at) for id_, due_at in family.due_times().items()}


def index(family: Family, *, has_place: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for member in family.calls.command("ZRANGE", family.keys.turns, 0, -1):
        key, kind, id_ = str(member, "utf-8").split("\n")
        if (kind == "h") is has_place:
            found.setdefault(key, []).append(id_)
    return found


def places(family: Family) -> dict[str, list[str]]:
    """Return the ids that have a place, by key."""
    return index(family, has_place=True)


def waiting(family: Family) -> dict[str, list[str]]:
    return index(family, has_place=False)


def test_no_more_of_an_actor_run_at_once_than_it_says_and_the_rest_come_in_their_turn(family):
    declare(family, concurrency=2)
    family.send(*"abcde")
    family.send("x", actor="mail")

    assert family.next() == ["a", "b", "x"]
    assert reasons(family) == dict.fromkeys("cde", "concurrency")
    assert family.next(owner=OTHER) == []
    end(family, "b")
    family.send("f")
    assert family.next(owner=OTHER) == ["c"]
    assert reasons(family) == dict.fromkeys("def", "concurrency")
    end(family, "a", "c")
    assert family.next() == ["d", "e"]


@pytest.mark.parametrize(
    ("one", "two", "apart"),
    [
        ({"kwargs": {"customer_id": 7}}, {"args": [7, "x"]}, False),
        ({"kwargs": {"customer_id": 7}}, {"args": [8]}, True),
        ({"args": ["7"]}, {"args": [7]}, True),
        ({"args": [None]}, {"args": [1]}, True),
        ({}, {"args": [1]}, False),
        ({"args": ["a-1"], "kwargs": {"host": "b"}}, {"kwargs": {"customer_id": "a-1"}}, False),
        ({"args": [10**15]}, {"kwargs": {"host": "b", "customer_id": 10**15}}, False),
        ({"args": ["a,]"]}, {"args": ["a,"]}, True),
        ({"args": [{"a": 1}]}, {"args": [{"a": 1}]}, False),
        ({"args": ["long " * 100]}, {"args": ["long " * 100 + "1"]}, True),
        ({"args": ["a\nw"]}, {"args": ["a\nh"]}, True),
    ],
)
def test_a_limit_counts_for_each_value_of_its_argument(family, one, two, apart):
    declare(family, concurrency="1 per customer_id")
    family.send("one", **one)
    family.send("two", **two)

    assert family.next() == (["one", "two"] if apart else ["one"])


def test_a_body_that_cannot_be_read_reaches_its_consumer(family):
    declare(family, concurrency="1 per customer_id")
    bodies = {b"text": b"no json", b"half": b'{"actor":"fan_out","args":[', b"list": b"[1]"}
    family.calls.pipeline([("HSET", family.keys.bodies, id_, body) for id_, body in bodies.items()])
    family.calls.command("RPUSH", family.keys.waiting("live")[1], *bodies, "none")

    assert sorted(family.next()) == ["half", "list", "none", "text"]


def test_one_of_several_limits_holds_a_message_without_a_place_of_the_others(family):
    declare(family, concurrency=["2 per customer_id", "1 per host"])
    for id_, args in {"a": [1, "x"], "b": [1, "x"], "c": [1, "y"], "d": [1, "z"], "e": [2, "x"]}.items():
        family.send(id_, args=args)

    assert family.next() == ["a", "c"]  # b and e wait for host x, d for customer 1
    end(family, "c")
    assert family.next() == ["d"]
    end(family, "a")  # its host is free and its customer has a place
    assert family.next() == ["b"]
    end(family, "b", "d")
    assert family.next() == ["e"]
    end(family, "e")
    assert not family.calls.command("EXISTS", family.keys.turns, family.keys.slots)


def move(family: Family, lease: Lease, lane: str = "retry", delay_ms: int = 60_000) -> None:
    body = family.calls.command("HGET", family.keys.bodies, lease.id)
    assert family.move(lease, move="divert", lane=lane, body=body, delay_ms=delay_ms)  # type: ignore[arg-type]


def schedule(family: Family, lease: Lease) -> None:
    body = family.calls.command("HGET", family.keys.bodies, lease.id)
    assert family.schedule(lease, body=body, due_at_ms=99_999_999_999_999)


ENDS: dict[str, Callable[[Family, Lease], object]] = {
    "acknowledged": lambda family, lease: family.ack(lease.owner, [lease]),
    "acknowledged with a fetch": lambda family, lease: family.fetch(RETRY, 1, request=1) and end(family, "a"),
    "retried": move,
    "deferred": lambda family, lease: move(family, lease, "live"),
    "scheduled": schedule,
    "dead": lambda family, lease: family.dead_letter(lease, b"{}"),
    "isolated": lambda family, lease: family.isolate(lease),
    "unreadable": lambda family, lease: family.quarantine(lease, b"{}"),
    "of a dead child": lambda family, lease: family.reclaim(lease.owner),
    "finished by a dead child": lambda family, lease: family.reclaim(lease.owner, finished=[lease]),
}


@pytest.mark.parametrize("how", ENDS)
def test_whatever_ends_a_message_its_place_goes_to_the_next_one(family, how):
    declare(family, concurrency=1)
    family.send("a")
    assert family.next(owner=OTHER) == ["a"]
    family.send("b", "c")
    assert family.next() == []

    ENDS[how](family, lease_of(family, "a"))

    assert family.next(1) == ["b"]
    assert places(family) == {"c fan_out": ["b"]}


def test_a_lease_that_expires_takes_the_place_with_it(family):
    declare(family, concurrency=1)
    family.join("short/live", lease_ms=1)
    family.send("a")
    assert family.next(owner="short/live") == ["a"]
    family.send("b")
    assert family.next() == []

    wait_for(lambda: family.lapsed() == ["short/live"])
    assert family.reclaim("short/live", only_lapsed=True)

    assert family.next(1) == ["b"]


def test_messages_that_are_released_come_back_before_those_that_wait(family):
    declare(family, concurrency=2)
    family.send("a", "b", "c", "d")
    assert family.next() == ["a", "b"]

    family.release(ME, family.held(ME))

    assert sorted(family.next()) == ["c", "d"]  # their places were passed on
    assert reasons(family) == {"a": "concurrency", "b": "concurrency"}


def test_the_heir_of_a_crash_has_its_place(family):
    declare(family, concurrency=1)
    family.send("a", "b")
    assert family.next(owner=OTHER) == ["a"]

    family.reclaim(OTHER, running=["a"], heir=ME)

    assert places(family) == {"c fan_out": ["a"]}
    assert family.next() == []
    family.lapsed()
    assert places(family) == {"c fan_out": ["a"]}
    end(family, "a")
    assert family.next() == ["b"]


def test_a_place_whose_holder_is_gone_is_found_by_the_sweep(family):
    declare(family, concurrency=1)
    family.send("a", "b", "c")
    assert family.next() == ["a"]
    family.calls.command("DEL", family.keys.hold(ME))  # as by a release that knows nothing of limits
    family.calls.command("HDEL", family.keys.bodies, "a")

    family.lapsed()

    assert family.next() == ["b"]
    family.calls.command("ZREM", family.keys.turns, "c fan_out\nh\nb")  # an index that has lost a member
    family.lapsed()
    assert family.next() == ["c"]


def test_a_place_that_its_lane_does_not_use_goes_to_another_lane(family):
    declare(family, concurrency=1)
    family.send("a", "r")
    assert family.next(1) == ["a"]
    [r] = family.next(1, owner=OTHER) or ["r"]
    end(family, "a")
    assert family.next(1) == [r]
    family.send("b")
    assert family.next() == []
    move(family, lease_of(family, r), delay_ms=0)  # b is next
    assert family.next(owner=RETRY) == []
    assert family.next() == ["b"]
    family.send("c")
    assert family.next() == []
    end(family, "b")  # r is next, and no retry pool is there
    assert family.next() == []

    def passed_on() -> bool:
        family.lapsed()
        return family.next() == ["c"]

    wait_for(passed_on)
    assert family.next(owner=RETRY) == []
    end(family, "c")
    assert family.next(owner=RETRY) == ["r"]


def test_a_sequence_is_kept_through_retries_and_returns(family):
    declare(family, ordered_by="customer_id")
    family.send("a", "b", args=[1])
    family.send("z", args=[2])
    assert family.next() == ["a", "z"]
    assert reasons(family) == {"b": "order"}

    move(family, lease_of(family, "a"), delay_ms=1)
    family.send("c", args=[1])
    assert family.next() == []
    again: list[str] = []
    wait_for(lambda: again.extend(family.next(owner=RETRY)) or again == ["a"])
    assert family.next() == []
    family.release(RETRY, [lease_of(family, "a")])
    family.lapsed()
    assert family.next() == []
    assert family.next(owner=RETRY) == ["a"]
    family.dead_letter(lease_of(family, "a"), b"{}")
    assert family.next() == ["b"]
    assert family.reclaim(ME) is not None
    assert sorted(family.next(owner=OTHER)) == ["b", "z"]
    end(family, "b")
    assert family.next(owner=OTHER) == ["c"]


def test_a_sequence_is_kept_while_its_first_one_waits_for_another_limit(family):
    declare(family, ordered_by="customer_id", concurrency=1)
    family.send("x", args=[2])
    assert family.next() == ["x"]
    family.send("a", "b", args=[1])
    assert family.next() == []
    family.send("c", args=[1])
    assert family.next() == []
    assert ended_one_by_one(family, "xabc") == ["a", "b", "c"]


def test_none_overtakes_a_first_one_that_waits_for_another_limit(family):
    declare(family, ordered_by="customer_id", concurrency="1 per host")
    family.send("other", args=[2, "x"])
    family.send("first", args=[1, "x"])
    family.send("second", args=[1, "y"])

    assert family.next() == ["other"]
    assert reasons(family) == {"first": "concurrency", "second": "order"}
    end(family, "other")
    assert family.next() == ["first"]
    end(family, "first")
    assert family.next() == ["second"]


@pytest.mark.parametrize("options", [{"ordered_by": "customer_id"}, {"concurrency": 1}], ids=["sequence", "limit"])
def test_one_that_is_run_now_keeps_its_turn(family, options):
    declare(family, **options)
    family.send("a", "b", "c")
    assert family.next() == ["a"]
    body = family.calls.command("HGET", family.keys.bodies, "b")

    assert administration.due_now(family, "b", as_read=body, body=body) == 0
    end(family, "a")  # before the next fetch
    family.send("d")

    assert family.next() == ["b"]
    end(family, "b")
    assert family.next() == ["c"]


def test_a_first_priority_goes_first_but_never_in_a_sequence(family):
    for options, expected in (({"concurrency": 1}, ["high", "low"]), ({"ordered_by": "customer_id"}, ["low", "high"])):
        declare(family, **options)
        family.send("a")
        assert family.next() == ["a"]
        body = b'{"actor":"fan_out","sent_at":1}'
        for id_, level in (("low", 3), ("high", 1)):
            family.enqueue([Entry(id_, body)], level=level)
            assert family.next() == []
        assert ended_one_by_one(family, ["a", *expected[:1]]) == expected
        end(family, expected[-1])
        family.calls.command("DEL", *family.keys.done, family.keys.limits)


def test_one_that_waits_is_cancelled_like_any_scheduled_one(family):
    declare(family, concurrency=1)
    family.send("a", "b", "c")
    assert family.next() == ["a"]

    assert administration.cancel(family, {"b": b""}) == {"b": "cancelled"}
    end(family, "a")
    assert administration.cancel(family, {"c": b""}) == {"c": "cancelled"}  # it has its place already
    family.send("d")

    assert family.next() == ["d"]
    assert waiting(family) == {}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("count", [3, 30])
def test_free_places_go_to_those_that_wait_in_their_turns(family, count, at_once):
    declare(family, concurrency=count)
    ids = [f"{number:02}" for number in range(2 * count)]
    family.send(*ids)
    assert family.next() == ids[:count]

    leases = [lease_of(family, id_) for id_ in ids[:count]]
    for chunk in [leases] if at_once else [[lease] for lease in leases]:
        family.ack(ME, chunk)

    assert [family.next(1) for _ in range(count)] == [[id_] for id_ in ids[count:]]


def test_one_whose_body_is_replaced_waits_by_its_new_value(family):
    declare(family, concurrency="1 per customer_id")
    family.send("a", "b", args=[1])
    assert family.next() == ["a"]
    family.calls.command("HSET", family.keys.bodies, "b", b'{"actor":"fan_out","args":[2]}')

    end(family, "a")

    assert family.next() == ["b"]
    assert places(family) == {"c fan_out customer_id=2": ["b"]}


def test_one_whose_argument_changes_leaves_its_sequence_which_goes_on(family):
    declare(family, ordered_by="customer_id")
    family.send("a", "b", "c", args=[1])
    family.send("x", "y", args=[2])
    assert family.next() == ["a", "x"]
    as_read, body = family.calls.command("HMGET", family.keys.bodies, "b", "x")
    assert administration.amend(family, "b", as_read=as_read, body=body) == 1

    assert ended_one_by_one(family, "axy") == ["c", "y", "b"]


def test_a_pause_keeps_the_sequence(family):
    declare(family, ordered_by="customer_id")
    made = pause(family)
    family.send("d", "c", args=[1])
    assert family.next() == []
    assert reasons(family) == {"d": "actor_paused", "c": "order"}
    family.send("b", args=[1])

    administration.resume_actor(family, made.field)

    order: list[str] = []
    for _ in range(3):
        order += family.next()
        end(family, order[-1])
    assert order == ["d", "c", "b"]


def test_one_of_a_paused_actor_gives_its_place_up(family):
    declare(family, concurrency="1 per host")
    family.send("a", "b", args=[1, "x"])
    family.send("c", args=[2, "x"])
    assert family.next() == ["a"]
    pause(family, argument="customer_id", position=1, value=1)

    end(family, "a")

    assert family.next() == ["c"]


def test_a_purge_leaves_the_places_of_what_runs_and_its_undo_the_sequence(family):
    declare(family, ordered_by="customer_id")
    family.send("a", *(f"b{number:02}" for number in range(20)))
    assert family.next() == ["a"]

    assert set_aside(family, "purge", by="me") == 20
    assert places(family) == {"o fan_out customer_id=1": ["a"]}
    family.send("new")
    assert family.next() == []
    undo(family, "purge", step=7)
    assert family.next() == []

    order = []
    for _ in range(21):
        [lease] = family.held(ME)
        family.ack(ME, [lease])
        order += family.next()
    assert [id_ for id_ in order if id_ != "new"] == [f"b{number:02}" for number in range(20)]


def test_a_flush_forgets_all_places(family):
    declare(family, concurrency=1)
    family.send("a", "b")
    assert family.next() == ["a"]

    administration.flush(family)
    family.send("c")

    assert family.next() == ["c"]


def test_a_limit_that_changes_counts_for_what_waits(family):
    declare(family, concurrency=1)
    family.send(*"abcdef")
    assert family.next() == ["a"]

    declare(family, concurrency=3)
    assert sorted(family.next()) == ["b", "c"]
    assert reasons(family) == dict.fromkeys("def", "concurrency")
    declare(family, concurrency=1)
    end(family, "a", "b")
    assert family.next() == []
    end(family, "c")
    assert family.next() == ["d"]
    declare(family)
    assert family.next() == ["e", "f"]
    end(family, "d", "e", "f")
    assert not family.calls.command("EXISTS", family.keys.limits, family.keys.slots, family.keys.turns)


def test_what_waits_for_a_limit_that_is_gone_is_found_by_the_sweep(family):
    declare(family, concurrency=1)
    family.send("a", "b", "c")
    assert family.next() == ["a"]
    family.calls.command("DEL", family.keys.limits)
    family.calls.command("ZREM", family.keys.turns, "c fan_out\nh\na")

    family.lapsed()

    assert family.next() == ["b"]


@pytest.mark.parametrize("name", ["limits", "slots", "waits", "turns"])
def test_a_key_of_a_wrong_type_loses_no_message(family, name):
    declare(family, concurrency=1)
    family.send("a", "b")
    assert family.next() == ["a"]
    family.send("c")
    key = getattr(family.keys, name)
    family.calls.command("DEL", key)
    family.calls.command("SET", key, "rubbish")

    with pytest.raises(Exception, match="WRONGTYPE"):
        family.next()
    end(family, "a")
    assert family.lapsed() == []
    family.calls.command("DEL", key)
    declare(family, concurrency=1)
    declare(family, concurrency=9)

    assert sorted([*family.next(), *family.next()]) == ["b", "c"]


def wrong_places(family: Family, most: dict[str, int]) -> list[str]:
    """Return what is wrong: too many places of a key, of ids that have left, or free ones that ids wait for."""
    held = {str(lease.id, "ascii") for owner in family.owners() for lease in family.held(owner)}
    lists = [key for lane in ALL_LANES for key in family.keys.waiting(lane)]
    listed = {str(id_, "ascii") for key in lists for id_ in family.calls.command("LRANGE", key, 0, -1)}
    dues = [family.calls.command("ZRANGE", family.keys.due(lane), 0, -1) for lane in ALL_LANES]
    due = {str(id_, "ascii") for ids in dues for id_ in ids}
    bodies = {str(id_, "ascii") for id_ in family.calls.command("HKEYS", family.keys.bodies)}
    wrong = [f"{id_} is in no place" for id_ in bodies - held - listed - due]
    has_place: set[str] = set()
    for key, ids in places(family).items():
        n = 1 if key.startswith("o ") else most[key.partition("=")[0]]
        wrong += [f"{key} has {ids}"] if len(ids) > n else []
        wrong += [f"{id_} of {key} has ended" for id_ in ids if id_ not in bodies]
        if key.startswith("c "):
            wrong += [f"{id_} of {key} is only scheduled" for id_ in ids if id_ not in held | listed]
        has_place |= set(ids)
    wrong += [f"{id_} is held without a place" for id_ in held - has_place]
    for key, ids in waiting(family).items():
        n = 1 if key.startswith("o ") else most[key.partition("=")[0]]
        wrong += [f"{ids} wait for {key}, which is free"] if len(places(family).get(key, [])) < n else []
        wrong += [f"{id_} waits and is not scheduled" for id_ in ids if id_ not in due]
    return wrong


LIMITS: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"concurrency": 2}, {"c fan_out": 2}),
    ({"concurrency": ["1 per host", "2 per customer_id"]}, {"c fan_out host": 1, "c fan_out customer_id": 2}),
    ({"ordered_by": "customer_id"}, {}),
    ({"ordered_by": "customer_id", "concurrency": "1 per host"}, {"c fan_out host": 1}),
]
ACTS = ["send", "send", "fetch", "fetch", "fetch", "ack", "ack", "retry", "release", "reclaim", "cancel", "isolate"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("options", "most"), LIMITS)
def test_a_random_walk_gives_each_place_once_and_loses_none(family, options, most, seed):
    """After each move places and waits are right; at the end all messages have run."""
    draw = random.Random(seed)
    declare(family, **options)
    owners, number = [ME, OTHER, RETRY, ALONE], 0
    for step in range(150):
        held = [lease for owner in owners for lease in family.held(owner)]
        lease, act = draw.choice(held) if held else None, draw.choice(ACTS)
        if act == "send":
            for _ in range(draw.randint(1, 4)):
                number += 1
                family.send(f"m{number:04}", args=[draw.randint(1, 3), draw.choice("xy")])
        elif act == "fetch":
            family.next(draw.randint(1, 3), owner=draw.choice(owners))
        elif act == "cancel" and number:
            administration.cancel(family, {f"m{draw.randint(1, number):04}": b""})
        elif lease is not None:
            if act == "ack":
                family.ack(lease.owner, [lease])
            elif act == "retry":
                move(family, lease, delay_ms=draw.choice([0, 1]))
            elif act == "release":
                family.release(lease.owner, [lease])
            elif act == "isolate":
                family.isolate(lease)
            elif act == "reclaim":
                family.reclaim(lease.owner)
                owners = [owner for owner in owners if owner != lease.owner]
                owners.append(f"o{step}/{lane_of(lease.owner)}")
                family.join(owners[-1])
        assert wrong_places(family, most) == [], (step, act)

    def drained() -> bool:
        for owner in owners:
            family.ack(owner, family.held(owner))
            family.next(owner=owner)
        return family.calls.command("HLEN", family.keys.bodies) == 0

    wait_for(drained)
    assert not family.calls.command("EXISTS", family.keys.slots, family.keys.turns)


def test_an_override_counts_for_what_waits_and_for_what_comes_until_its_time(family):
    declare(family, concurrency="1 per customer_id")
    family.send("a", "b", "c", "d", args=[7])
    family.send("x", "y", "z", args=[8])
    assert sorted(family.next()) == ["a", "x"]

    override_limit(family, "c fan_out customer_id", Override(3, now_ms(family) + 60_000))
    assert sorted(family.next()) == ["b", "c", "y", "z"]
    wait = limits.wait_of(family, "d")
    assert wait is not None and (wait.n, wait.taken) == (3, 3)
    override_limit(family, "c fan_out customer_id", Override(2, now_ms(family) + 60_000))
    end(family, "a")
    assert family.next() == []  # two run
    end(family, "b")
    assert family.next() == ["d"]
    override_limit(family, "c fan_out customer_id", None)
    family.send("e", args=[7])
    assert family.next() == []


def test_a_lowered_limit_is_as_declared_again_at_its_time_without_anybody(family):
    declare(family, concurrency=3)
    override_limit(family, "c fan_out", Override(1, ends := now_ms(family) + 300))
    family.send(*"abcd")

    assert family.next() == ["a"]
    wait_for(lambda: now_ms(family) > ends)
    assert [state.current for state in limit_states([family])] == [3]
    family.lapsed()  # as every supervisor asks it every two seconds
    assert sorted(family.next()) == ["b", "c"]


def test_an_override_reaches_thousands_of_keys_in_calls_of_bounded_length(family):
    declare(family, concurrency="1 per customer_id")
    for customer in range(450):
        family.send(f"{customer}-a", f"{customer}-b", args=[customer])
    assert len(family.next(2_000)) + len(family.next(2_000)) == 450

    override_limit(family, "c fan_out customer_id", Override(2, now_ms(family) + 60_000))

    assert len(family.next(2_000)) == 450


def test_an_override_whose_time_is_over_is_refused_and_changes_nothing(family):
    declare(family, concurrency=1)

    with pytest.raises(ValueError, match="over by the server's clock"):
        override_limit(family, "c fan_out", Override(5, now_ms(family) - 1))

    family.send(*"abc")
    assert family.next() == ["a"]


def test_limits_are_counted_as_their_index_says_whatever_becomes_of_the_messages(family):
    rng = random.Random(20261128)
    declare(family, concurrency=[4, "2 per customer_id"], ordered_by="host")
    ids: list[str] = []
    for step in range(150):
        act = rng.choice(["send", "fetch", "fetch", "end", "back", "cancel", "override"])
        if act == "send":
            ids += [f"{step}-{n}" for n in range(3)]
            family.send(*ids[-3:], args=[rng.randrange(3), rng.choice("ab")])
        elif act == "fetch":
            family.next(rng.randrange(1, 5))
        elif act == "override":
            override_limit(
                family, "c fan_out", rng.choice([None, Override(rng.randrange(1, 9), now_ms(family) + 9_000)])
            )
        elif act == "cancel" and ids:
            administration.cancel(family, {rng.choice(ids): b""})
        elif (held := family.held(ME)) and act == "end":
            family.ack(ME, [rng.choice(held)])
        elif held:
            family.release(ME, [rng.choice(held)])

        found = {(state.kind, state.argument): state for state in limit_states([family])}
        held_by, waits = places(family), waiting(family)
        for (kind, argument), state in found.items():
            prefix = f"{'o' if kind == 'order' else 'c'} fan_out" + (f" {argument}=" if argument else "")
            mine = lambda index, prefix=prefix, exact=not argument: sum(  # noqa: E731
                len(its) for key, its in index.items() if key == prefix or (not exact and key.startswith(prefix))
            )
            assert (state.taken, state.waiting) == (mine(held_by), mine(waits)), (step, act, kind, argument)


def test_keys_are_listed_by_page_and_the_largest_are_found_without_a_walk(family):
    declare(family, concurrency="1 per customer_id")
    for customer in range(120):
        family.send(f"{customer}", f"{customer}-b", args=[customer])
    family.send(*(f"big-{n}" for n in range(40)), args=[55])
    while family.next(500):
        pass
    [state] = limit_states([family])

    pages = [first := key_page(family, state, count=50)]
    for _ in range(2):
        pages.append(key_page(family, state, after=pages[-1].after, count=50))
    from_77 = key_page(family, state, first="77", count=2)

    assert [each.value for page in pages for each in page.keys] == sorted(map(str, range(120)))
    assert pages[2].after == ""
    assert (state.taken, state.waiting) == (120, 160)
    assert first.largest[0].value == "55"
    assert (first.largest[0].taken, first.largest[0].waiting) == (1, 41)
    assert pages[1].largest == []
    assert [each.value for each in from_77.keys] == ["77", "78"]
    assert from_77.keys[0].next_job == "77-b"
    assert from_77.keys[0].since is not None


def test_a_fair_lane_is_counted_by_tenant(family):
    def function(customer_id: int) -> None: ...

    broker = StubBroker(middleware=[])
    actor = dramatiq.actor(function, actor_name="fan_out", broker=broker)
    limits.declare_fair(family, FairShare("customer_id"), [actor])
    family.send("a", "b", "c", args=[7], options={"enqueued_at": 1_700_000_000_000})
    family.send("x", args=["é/7"])

    [state] = limit_states([family])
    page = key_page(family, state, count=9)

    assert (state.kind, state.keys, state.waiting) == ("fair_share", 2, 4)
    assert [(each.value, each.taken, each.waiting) for each in page.keys] == [('"é\\/7"', 0, 1), ("7", 0, 3)]
    assert page.keys[1].since == datetime.fromtimestamp(1_700_000_000, UTC)
    assert key_page(family, state, first='"é\\/7"', count=9).keys == page.keys
