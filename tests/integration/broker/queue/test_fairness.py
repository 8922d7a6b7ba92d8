"""Fair lanes: tenants are served in turn and by weight, whoever sent first, and nothing waits while a slot is free."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.admin.purge import set_aside, undo
from switchyard.broker.clock import put_off_reason
from switchyard.broker.errors import BrokerError
from switchyard.broker.queue import administration, limits
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis.scripts import script
from switchyard.broker.topology import FairShare
from tests.integration.broker.queue.conftest import ME, Family, now_ms, pause
from tests.integration.broker.queue.test_limits import declare, end
from tests.waiting import wait_for

TURNS = 40


@pytest.fixture
def family(family: Family) -> Family:
    be_fair(family)
    return family


def be_fair(family: Family, share: FairShare | None = FairShare("customer_id")) -> None:  # noqa: B008  frozen
    def function(customer_id: int = 0, number: int = 0) -> None: ...

    actors: Any = [SimpleNamespace(actor_name=name, options={}, fn=function) for name in ("fan_out", "mail")]
    limits.declare_fair(family, share, actors)


def send(family: Family, tenant: Any, count: int, first: int = 0, **options: Any) -> None:
    for number in range(first, first + count):
        family.send(f"{tenant}.{number:04}", args=[tenant], **options)


def tenants(ids: list[str]) -> list[str]:
    return [id_.partition(".")[0] for id_ in ids]


def assert_in_order(ids: list[str]) -> None:
    """Check that each tenant's messages started in the order of their numbers."""
    assert sorted(ids, key=lambda id_: id_.partition(".")[0]) == sorted(ids)


def one_by_one(family: Family, count: int) -> list[str]:
    """Return the ids of so many fetches of one message, each ended at once."""
    found = []
    for _ in range(count):
        got = family.next(1)
        end(family, *got)
        found += got
    return found


def test_tenants_are_served_in_turn_and_each_in_its_order(family):
    for tenant in (1, 2, 3):
        send(family, tenant, TURNS)

    found = one_by_one(family, 3 * TURNS)

    for place in range(0, 3 * TURNS, 3):
        assert sorted(tenants(found[place : place + 3])) == ["1", "2", "3"]
    for tenant in "123":
        assert [id_ for id_ in found if id_.startswith(tenant)] == [f"{tenant}.{number:04}" for number in range(TURNS)]
    assert family.next() == []
    assert not family.calls.command("EXISTS", *family.keys.fair_lines("live"))


def test_tenants_get_as_much_as_they_weigh(family):
    be_fair(family, FairShare("customer_id", {1: 3, "gold": 2}))
    for tenant in (1, "gold", 5):
        send(family, tenant, 300)

    found = Counter(tenants(one_by_one(family, 300)))

    assert found["1"] == pytest.approx(150, rel=0.05)
    assert found["gold"] == pytest.approx(100, rel=0.05)
    assert found["5"] == pytest.approx(50, rel=0.05)


def test_one_that_sends_again_and_again_is_not_served_before_its_turn(family):
    send(family, 1, 100)
    found = []
    for number in range(20):
        send(family, 2, 1, first=number)
        found += one_by_one(family, 2)

    assert Counter(tenants(found)) == {"1": 20, "2": 20}


def test_a_tenant_alone_has_all_slots_and_owes_nothing_later(family):
    send(family, 1, 50)
    assert len(family.next(50)) == 50
    send(family, 1, 10, first=50)
    send(family, 2, 10)

    assert Counter(tenants(one_by_one(family, 10))) == {"1": 5, "2": 5}


def test_a_fetch_of_many_takes_from_all_in_turn(family):
    for tenant in range(1, 6):
        send(family, tenant, 20)

    assert Counter(tenants(family.next(10))) == dict.fromkeys("12345", 2)


def test_what_is_due_later_stands_in_line_then(family):
    for tenant in (1, 2):
        for number in range(5):
            family.send(f"{tenant}.{number}", args=[tenant], delay_ms=1)
    wait_for(lambda: max(family.due_times().values()) < now_ms(family))

    assert [Counter(tenants(one_by_one(family, 4))) for _ in range(2)] == [{"1": 2, "2": 2}] * 2


def test_what_comes_back_goes_first_and_counts_no_further_turn(family):
    send(family, 1, 5)
    send(family, 2, 5)
    got = family.next(2)

    family.release(ME, family.held(ME))
    assert family.next(2) == got
    family.reclaim(ME)
    family.join("next/live")
    assert sorted(family.next(2, owner="next/live")) == sorted(got)


def test_one_that_is_run_now_keeps_its_turn_in_its_line(family):
    send(family, 1, 3)
    family.send("1.later", args=[1], delay_ms=60_000)
    before = {id_: at for id_, at in family.due_times().items() if id_ != "1.later"}

    for id_, answer in {"1.0000": 0, "1.later": 1}.items():
        body = family.calls.command("HGET", family.keys.bodies, id_)
        assert administration.due_now(family, id_, as_read=body, body=body) == answer

    assert before.items() <= family.due_times().items()
    assert one_by_one(family, 4) == ["1.0000", "1.0001", "1.0002", "1.later"]


def test_a_tenant_whose_messages_a_limit_holds_gets_its_turns_alone(family):
    declare(family, concurrency="4 per customer_id")
    send(family, 1, 300)
    running = [family.next(1)[0] for _ in range(4)]
    assert family.next(1) == []  # the others wait for the limit
    for tenant in (2, 3, 4):
        send(family, tenant, 50)

    started = []
    for _ in range(100):
        end(family, running.pop(0))
        running += family.next(1)
        started.append(running[-1])

    assert Counter(tenants(started)) == pytest.approx(dict.fromkeys("1234", 25), abs=1)
    assert_in_order(started)


@pytest.mark.parametrize("weight", [1, 3])
def test_tenants_get_the_places_of_a_limit_that_they_share_in_turn(family, weight):
    be_fair(family, FairShare("customer_id", {1: weight}))
    declare(family, concurrency=2)
    send(family, 1, 300)
    running = family.next(5)
    assert len(running) == 2
    for tenant in (2, 3):
        send(family, tenant, 50)
    family.next(5)
    send(family, 4, 50)
    family.next(5)
    waits = [limits.wait_of(family, id_) for id_ in ("2.0000", "4.0000")]
    assert [wait.before for wait in waits if wait is not None] == pytest.approx([weight, weight + 2], abs=1)

    started = []
    for _ in range(20 * (weight + 3)):
        end(family, running.pop(0))
        running += family.next(5)
        assert len(running) == 2
        started.append(running[-1])

    assert Counter(tenants(started)) == pytest.approx({"1": 20 * weight, "2": 20, "3": 20, "4": 20}, abs=3)
    assert_in_order(started)


def test_a_retry_waits_for_a_limit_that_tenants_share_as_long_as_its_tenant(family):
    declare(family, concurrency=1)
    family.join("me/retry")
    for number in range(20):  # each place makes the first one's turn lag behind those that came since
        send(family, 1 + number % 4, 5, first=number * 5)
        family.next(5)
        end(family, str(family.held(ME)[0].id, "ascii"))
    family.enqueue([Entry("9.retry", b'{"actor":"fan_out","sent_at":1,"args":[9]}')], lane="retry")
    family.next(5)
    assert family.next(5, owner="me/retry") == []
    started: list[str] = []
    while "9.retry" not in started:
        held = [str(lease.id, "ascii") for owner in (ME, "me/retry") for lease in family.held(owner)]
        end(family, *held)
        started += family.next(5) + family.next(5, owner="me/retry")

    assert len(started) <= 6


def test_many_messages_that_a_limit_holds_delay_no_other_tenant_while_they_are_put_off(family):
    declare(family, concurrency="1 per customer_id")
    send(family, 1, 1_200)
    assert family.next(1) == ["1.0000"]
    send(family, 2, 1)

    assert family.next(1) == ["2.0000"]


def test_a_message_in_line_is_cancelled_paused_and_limited_like_any(family):
    declare(family, name="mail", concurrency=1)
    send(family, 1, 3)
    send(family, 2, 2, actor="mail")
    assert administration.cancel(family, {"1.0000": b""}) == {"1.0000": "cancelled"}
    made = pause(family, argument="customer_id", position=1, value=1)

    assert family.next() == ["2.0000"]
    assert sorted(map(put_off_reason, family.due_times().values())) == [*["actor_paused"] * 2, "concurrency"]
    administration.resume_actor(family, made.field)
    assert family.next() == ["1.0001", "1.0002"]
    end(family, "2.0000")
    assert family.next() == ["2.0001"]


def test_new_limits_leave_the_lines_as_they_are(family):
    send(family, 1, 5)
    before = family.due_times()

    declare(family, name="mail", concurrency=1)

    assert family.due_times() == before


def test_figures_count_what_stands_in_line_as_waiting(family):
    send(family, 1, 7)
    family.send("later", delay_ms=60_000)

    stats = family_stats(family.calls, family.keys)

    assert (stats.live.waiting, stats.live.scheduled) == (7, 1)
    assert (stats.live.oldest_age_ms or 0) > 0
    assert {put_off_reason(due_at) for due_at in family.due_times().values()} == {"fair_share", ""}
    keys, args = family.backlog_call()
    assert family.calls.call(script("backlog"), keys, args)[0] == 7


def test_a_purge_and_its_undo_keep_turns_and_all_messages(family):
    send(family, 1, 30)
    send(family, 2, 30)
    assert set_aside(family, "purge", by="me") == 60
    assert family.next() == []
    undo(family, "purge")

    found: list[str] = []
    wait_for(lambda: found.extend(one_by_one(family, 1)) or len(found) == 60)  # type: ignore[func-returns-value]

    assert Counter(tenants(found[:10])) == {"1": 5, "2": 5}


def test_a_queue_that_is_fair_no_longer_serves_what_stood_in_line(family):
    send(family, 1, 600)
    send(family, 2, 1)
    be_fair(family, None)

    assert family.all_of(601)[-1] == "2.0000"
    send(family, 3, 1)
    assert family.next() == ["3.0000"]


@pytest.mark.parametrize("again", [None, FairShare("customer_id")], ids=["unfair", "fair again"])
def test_a_kill_while_a_queue_stops_being_fair_loses_none(family, again, monkeypatch):
    send(family, 1, 1_200)
    with monkeypatch.context() as killed:
        answers = iter([family.calls.call])
        killed.setattr(family.calls, "call", lambda *args: next(answers)(*args))
        with pytest.raises(StopIteration):
            be_fair(family, None)
    assert sum(put_off_reason(due_at) == "fair_share" for due_at in family.due_times().values()) == 700

    be_fair(family, again)  # as the next worker does when it starts

    found = family.all_of(1_200)
    assert found == sorted(found)


def test_bodies_that_cannot_be_read_and_odd_tenants_are_served(family):
    for number, args in enumerate([[None], [{"a": 1}], ["x" * 500], ["a\nb"], [], [1.5]]):
        family.send(f"m{number}", args=args)
    family.calls.command("HSET", family.keys.bodies, "m0", b"no json")

    assert sorted(family.next()) == [f"m{number}" for number in range(6)]


def test_many_tenants_and_stale_entries_cost_no_message(family):
    for tenant in range(1_000):
        send(family, tenant, 1)
    ids = [f"{tenant}.0000" for tenant in range(700)]
    for start in range(0, 700, 100):
        administration.cancel(family, dict.fromkeys(ids[start : start + 100], b""))

    assert sorted(map(int, tenants(family.all_of(300, 50)))) == list(range(700, 1_000))


@pytest.mark.parametrize("place", [0, 1, 2], ids=["lines", "shares", "spent"])
def test_a_key_of_a_wrong_type_costs_no_message(family, place):
    key = family.keys.fair_lines("live")[place]
    send(family, 1, 2)
    send(family, 2, 1)
    found = one_by_one(family, 1)
    kept = family.calls.command("DUMP", key) if place < 2 else None
    family.calls.command("SET", key, "foreign")

    for act in (lambda: send(family, 3, 1), lambda: family.next(5)):
        with pytest.raises(BrokerError):
            act()
    family.calls.command("DEL", key)
    if kept is not None:
        family.calls.command("RESTORE", key, 0, kept)
    send(family, 3, 1)

    assert sorted(found + family.next(5)) == ["1.0000", "1.0001", "2.0000", "3.0000"]
